"""Council GAN: masks, critics, focus, the matching of the council's weight, and the members' mean as an answer."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from comparing import build, images, judged, parameters, step
from torch import nn

from healmap import recipes
from healmap.methods import weights
from healmap.methods.councilgan import CouncilGAN, Matching


def council(members=3, **settings):
    method = build(CouncilGAN, members=members, **settings)
    with torch.no_grad():
        for p in [*method.D.parameters(), *method.C.parameters()]:
            p.add_(0.1 * torch.randn_like(p))  # far enough from the start to tell the members apart
    return method


def test_council_gan_applies_its_masks_in_turn():
    method, x = council(), images(2, channels=1)
    s = torch.randn(2, method.config.style)
    with torch.no_grad():
        out = method.G[1](x, s).tanh()
        masks = ((10 * out[:, 3:]).tanh() + 1) / 2
        y = x
        for k in range(3):
            y = (1 - masks[:, k : k + 1]) * y + masks[:, k : k + 1] * out[:, k : k + 1]
        t = method.translate(x, s, 1)
    torch.testing.assert_close(t.image, y)
    torch.testing.assert_close(t.masks, masks)


def test_council_critics_tell_their_member_from_the_mean_of_the_others():
    method, a = council(), images()
    ys = [images(seed=s) for s in (5, 6, 7)]
    expected = 0
    for i, C in enumerate(method.C):
        own = judged(C, torch.cat([ys[i], a], 1), 0)
        others = [judged(C, torch.cat([ys[j], a], 1), 1) for j in range(3) if j != i]
        expected += own + sum(others) / 2
    torch.testing.assert_close(method.council_critic_loss(a, ys)["council"], expected)


def test_the_council_is_a_game_of_equals():
    """Renaming the members changes nothing: neither the critics' loss nor the generators'."""
    method, a, s = council(match=False), images(), torch.zeros(3, 4)
    ts = [method.translate(a, s, i) for i in range(3)]
    critic = method.council_critic_loss(a, [t.image for t in ts]).total
    generator = method.generator_loss(a, ts, 10)
    for order in ([1, 0, 2], [2, 0, 1]):
        for players in (method.D, method.C):
            kept = list(players)
            for i, j in enumerate(order):
                players[i] = kept[j]
        renamed = [ts[j] for j in order]
        torch.testing.assert_close(method.council_critic_loss(a, [t.image for t in renamed]).total, critic)
        for term, value in method.generator_loss(a, renamed, 10).items():
            torch.testing.assert_close(value, generator[term], msg=term)
        ts = renamed


def test_members_that_agree_cannot_be_told_apart():
    """One and the same work: a council critic does best with 1/2 everywhere, 1/4 + 1/4 for each scale and member."""
    method, a = council(2), images()
    y = images(seed=5)
    with torch.no_grad():
        for D in method.C.modules():
            if isinstance(D, nn.Sequential):  # the head
                D[-1].weight.zero_()
                D[-1].bias.fill_(0.5)
    found = method.council_critic_loss(a, [y, y])["council"]
    scales = method.config.scales
    assert found.item() == pytest.approx(2 * scales * 0.5)
    with torch.no_grad():
        for D in method.C.modules():
            if isinstance(D, nn.Sequential):
                D[-1].bias.fill_(0.6)
    assert method.council_critic_loss(a, [y, y])["council"].item() > found.item()


def test_a_members_loss_is_about_itself():
    method, a = council(match=False), images()
    ts = method.everyone(a)
    losses = method.generator_loss(a, ts, 10)
    for i, j in combinations(range(3), 2):
        only = judged(method.C[i], torch.cat([ts[i].image, a], 1), 1)
        gradients = torch.autograd.grad(only, list(method.G[j].parameters()), allow_unused=True, retain_graph=True)
        assert all(g is None for g in gradients)
    total = sum(judged(C, torch.cat([t.image, a], 1), 1) for C, t in zip(method.C, ts, strict=True))
    torch.testing.assert_close(losses["council"], method.config.lambda_council * total)
    healthy = sum(judged(D, t.image, 1) for D, t in zip(method.D, ts, strict=True))
    torch.testing.assert_close(losses["adv"], method.config.lambda_gan * healthy)


def test_focus_of_the_council():
    method = council(lambda_size=2.0, lambda_binary=3.0, lambda_tv=5.0)
    m = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    size = (m.mean((1, 2, 3)) ** 2).mean()
    binary = (1 / ((m - 0.5).abs() + 0.01)).mean() - 1 / 0.51
    smooth = (m[:, :, 1:] - m[:, :, :-1]).abs().mean() + (m[..., 1:] - m[..., :-1]).abs().mean()
    torch.testing.assert_close(method.focus(m), 2 * size + 3 * binary + 5 * smooth)


@pytest.mark.parametrize(("k", "found"), [(0, set()), (3, {"council"}), (5, {"council", "focus"})])
def test_council_and_focus_begin_at_their_steps(k, found):
    losses = step(build(CouncilGAN, council_start=3, focus_start=5), k=k)
    assert set(losses["G"]) == {"adv"} | found
    assert ("C" in losses) == (k >= 3)


def test_matching_is_the_ratio_of_running_means():
    matching, memory = Matching(2, memory=0.5), torch.zeros(2, 2)
    for _ in range(4):
        gan, critic = torch.rand(2) + 0.1, torch.rand(2) + 0.1
        memory = 0.5 * memory + 0.5 * torch.stack([gan, critic])
        torch.testing.assert_close(matching(gan, critic), memory[0] / memory[1])


def test_running_means_are_kept_for_training_only():
    method = council()
    assert any(k.startswith("matching.") for k in method.state_dict())
    assert not any(k.startswith("matching.") for k in weights.kept(method))


def test_council_gan_answers_with_its_members_means():
    method, x = council().eval(), images()
    with torch.no_grad():
        p, ts = method.predict(x), [method.translate(x, torch.zeros(3, 4), i) for i in range(3)]
    torch.testing.assert_close(p.healed, sum(t.image for t in ts) / 3)
    torch.testing.assert_close(p.anomaly_map, sum((x - t.image).abs() / 2 for t in ts) / 3)
    kept = [(1 - t.masks[:, :1]) * (1 - t.masks[:, 1:2]) * (1 - t.masks[:, 2:]) for t in ts]
    torch.testing.assert_close(p.maps["mask"], 1 - sum(kept) / 3)


@pytest.mark.parametrize(
    ("name", "size", "weights_"),
    [("council-gan", 128, (24, 12, 57, 10, 2.2)), ("council-gan-male-to-female", 256, (24, 4, 0.5, 0.5, 0))],
)
def test_fact_published_settings(name, size, weights_):
    found = recipes.get(name)
    m = found.method
    assert (found.data.size, found.data.batch_size) == (size, 3)
    assert (m.lr, m.betas, m.weight_decay, m.halve_every) == (1e-4, (0.5, 0.999), 1e-4, 100_000)
    assert (m.lambda_gan, m.lambda_council, m.lambda_size, m.lambda_binary, m.lambda_tv) == weights_
    assert m.focus_start == {128: 15_000, 256: 50_000}[size]


def test_fact_the_council():
    """It is without the released program's style encoders, which no loss reaches: 2,779,328 a member."""
    m = recipes.get("council-gan").method
    assert (m.steps, m.council_start) == (1_500_000, 10_000)
    assert (m.members, m.masks, m.style, m.council_steps) == (4, 3, 64, 4)
    assert parameters(CouncilGAN) == 115_834_176 - 4 * 2_779_328
