"""UNIT, ACL-GAN, Council GAN, CoGAN and BiGAN: who moves when, what each term is, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, repeat

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import comparators, weights
from healmap.methods.aclgan import ACLGAN, bounded_focus
from healmap.methods.base import Optimisers
from healmap.methods.bigan import BiGAN
from healmap.methods.cogan import CoGAN, distance
from healmap.methods.councilgan import CouncilGAN, Matching
from healmap.methods.unit import UNIT, A, B
from healmap.types import Batch, Needs, Spec

METHODS = {"unit": UNIT, "acl-gan": ACLGAN, "council-gan": CouncilGAN, "cogan": CoGAN, "bigan": BiGAN}
PLAYERS = {name: ("G", "D", "C") if name == "council-gan" else ("G", "D") for name in METHODS}


def build(cls, seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = cls.tiny()
    return cls(replace(config, **settings), spec)


def images(n=3, seed=1, channels=1):
    return torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def step(method, k=2, seed=3):
    torch.manual_seed(seed)
    phase = method.phases()[0]
    optimisers = Optimisers(phase.optimisers)
    return phase.step(repeat(Batch(images(), healthy=images(seed=2))), k, optimisers)


def judged(D, x, target):
    """Least squares over all scales, from the definition."""
    return sum(((m - target) ** 2).sum() / m.numel() for m in D(x))


# All of them


@pytest.mark.parametrize("name", METHODS)
def test_every_player_moves_in_a_step_and_only_by_its_own_loss(name):
    method = build(METHODS[name])
    optimisers = Optimisers(method.phases()[0].optimisers)
    descend, seen = optimisers.descend, []

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in PLAYERS[name]}
        descend(which, loss)
        for m in PLAYERS[name]:
            parameters = list(getattr(method, m).parameters())
            assert any(p.grad is not None for p in parameters) == (m == which)
            moved = any(not torch.equal(p, q) for p, q in zip(before[m], parameters, strict=True))
            assert moved == (m == which)
        seen.append(which)

    optimisers.descend = watched
    losses = method.step(repeat(Batch(images(), healthy=images(seed=2))), 2, optimisers)
    order = {"acl-gan": ["D", "G", "G"], "council-gan": ["D", "C", "C", "G"]}
    assert seen == order.get(name, ["D", "G"])
    assert all(t.isfinite() and t.ndim == 0 for group in losses.values() for t in group.values())


@pytest.mark.parametrize("name", METHODS)
def test_sets_reached_and_directions(name):
    method, x = build(METHODS[name]).eval(), images(4)
    assert method.needs is Needs.DISEASED_AND_HEALTHY
    assert method.reaches == ("healthy" if name == "council-gan" else "all")
    with torch.no_grad():
        healed = method.translate_to(x, torch.zeros(4, dtype=torch.int64))
        mixed = method.translate_to(x, torch.tensor([0, 1, 1, 0]))
        torch.testing.assert_close(healed, method.heal(x))
        torch.testing.assert_close(method.predict(x).healed, healed)
    torch.testing.assert_close(mixed[[0, 3]], healed[[0, 3]], rtol=1e-4, atol=1e-4)
    assert torch.allclose(mixed[1:3], healed[1:3], atol=1e-3) == (name == "council-gan")


@pytest.mark.parametrize("name", METHODS)
def test_healing_draws_no_chance(name):
    method, x = build(METHODS[name]).eval(), images()
    with torch.no_grad():
        first = method.predict(x)
        torch.manual_seed(99)
        second = method.predict(x)
    assert torch.equal(first.healed, second.healed)
    assert torch.equal(first.score, second.score)
    torch.testing.assert_close(first.score, first.anomaly_map.mean((1, 2, 3)))


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_trains_and_answers_in_float32(name):
    full = step(build(METHODS[name]))
    with torch.autocast("cpu", torch.bfloat16):
        method = build(METHODS[name])
        half = step(method)
        with torch.no_grad():
            prediction = method.eval().predict(images())
    for group in full:
        for term in full[group]:
            assert half[group][term].dtype == torch.float32
            assert half[group][term].item() == pytest.approx(full[group][term].item(), rel=0.15, abs=0.1), (group, term)
    assert prediction.score.dtype == prediction.healed.dtype == prediction.anomaly_map.dtype == torch.float32


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"steps": 0}, {"width": 0}])
def test_settings_that_cannot_work_are_refused(name, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        METHODS[name].Config(**setting)


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (UNIT, {"lambda_kl": -1.0}),
        (UNIT, {"weight_decay": -1e-4}),
        (ACLGAN, {"lower": 0.6}),
        (ACLGAN, {"upper": 1.5}),
        (CouncilGAN, {"members": 1}),
        (CouncilGAN, {"council_start": -1}),
        (CoGAN, {"critic_widths": (20,)}),
        (CoGAN, {"search_steps": -1}),
        (BiGAN, {"decay_share": 2.0}),
    ],
)
def test_settings_of_one_method_are_refused_with_advice(cls, setting):
    with pytest.raises(ConfigError) as refused:
        cls.Config(**setting)
    assert refused.value.hint


@pytest.mark.parametrize("name", ["unit", "acl-gan", "council-gan", "cogan"])
def test_weight_decay_and_halving(name):
    method = build(METHODS[name], halve_every=10, weight_decay=0.01)
    (phase,) = method.phases()
    assert all(g["weight_decay"] == 0.01 for o in phase.optimisers.values() for g in o.param_groups)
    assert [phase.lr_scale(k, 100) for k in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    assert build(METHODS[name], halve_every=0).phases()[0].lr_scale(10**6, 10**6) == 1


# UNIT


def test_unit_terms_are_their_equations():
    method, a, b = build(UNIT, lambda_gan=2.0), images(), images(2, seed=2)
    t = method.translate(a, b)
    D_b, D_a = method.D
    critic = method.critic_loss(a, b, t)
    torch.testing.assert_close(critic["healthy"], 2 * (judged(D_b, b, 1) + judged(D_b, t.ab, 0)))
    torch.testing.assert_close(critic["diseased"], 2 * (judged(D_a, a, 1) + judged(D_a, t.ba, 0)))
    torch.manual_seed(7)
    losses = method.generator_loss(a, b, t)
    torch.manual_seed(7)
    mu_ab, mu_ba = method.G.encode(t.ab, B), method.G.encode(t.ba, A)
    aba = torch.tanh(method.G.decode(mu_ab + torch.randn_like(mu_ab), A))
    bab = torch.tanh(method.G.decode(mu_ba + torch.randn_like(mu_ba), B))
    expected = {
        "adv": 2 * (judged(D_b, t.ab, 1) + judged(D_a, t.ba, 1)),
        "rec": 10 * ((t.aa - a).abs().mean() + (t.bb - b).abs().mean()),
        "kl": 0.01 * ((t.mu_a**2).mean() + (t.mu_b**2).mean()),
        "cyc": 10 * ((aba - a).abs().mean() + (bab - b).abs().mean()),
        "kl_cyc": 0.01 * ((mu_ab**2).mean() + (mu_ba**2).mean()),
    }
    assert set(losses) == set(expected)
    for term, value in expected.items():
        torch.testing.assert_close(losses[term], value, msg=term)


def test_unit_has_noise_in_training_only():
    method, a, b = build(UNIT), images(), images(seed=2)
    with torch.no_grad():
        assert not torch.equal(method.translate(a, b).ab, method.translate(a, b).ab)
        torch.testing.assert_close(method.heal(a), torch.tanh(method.G.decode(method.G.encode(a, A), B)))
        ill = method.translate_to(b, torch.ones(3, dtype=torch.int64))
        torch.testing.assert_close(ill, torch.tanh(method.G.decode(method.G.encode(b, B), A)))


def test_unit_shares_blocks_when_asked_to():
    apart, shared = build(UNIT), build(UNIT, share_last=True)
    block = sum(p.numel() for p in apart.G.encoders[0].blocks[0].parameters())
    sizes = [sum(p.numel() for p in m.G.parameters()) for m in (apart, shared)]
    assert sizes[0] - sizes[1] == 2 * block  # the encoders' and the decoders', once instead of twice
    step(shared)


def test_unit_translates_once_for_both_updates():
    method, seen = build(UNIT), []
    encode = method.G.encode
    method.G.encode = lambda x, domain: seen.append(domain) or encode(x, domain)
    step(method)
    assert sorted(seen) == [0, 0, 1, 1]  # there and back, nothing for the discriminators


# ACL-GAN


def naive_focus(mask, lower, upper, delta, eps):
    total = 0.0
    for m in mask.flatten(1).tolist():
        over, under = sum(v - upper for v in m), sum(lower - v for v in m)
        binary = sum(1 / (abs(v - 0.5) + eps) for v in m)
        total += (delta * max(0, over) ** 2 + delta * max(0, under) ** 2 + binary) / (3 * len(m))
    return total / len(mask)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_bounded_focus_is_its_equation(share):
    mask = (torch.rand(3, 1, 6, 5, generator=torch.Generator().manual_seed(0)) * 0.2 + share).double().clamp(0, 1)
    found = bounded_focus(mask, lower=0.3, upper=0.6, delta=0.1, eps=0.01)
    assert found.item() == pytest.approx(naive_focus(mask, 0.3, 0.6, 0.1, 0.01), rel=1e-9)


def test_bounded_focus_pushes_the_mask_between_its_bounds():
    def slope(share):
        mask = torch.full((1, 1, 8, 8), share, requires_grad=True)
        bounds, free = (bounded_focus(mask, lower=0.3, upper=0.5, delta=d, eps=0.01) for d in (0.1, 0.0))
        return torch.autograd.grad(bounds - free, mask)[0].sum().item()

    assert slope(0.2) < 0
    assert slope(0.4) == 0
    assert slope(0.7) > 0


def test_bounded_focus_counts_each_image_for_itself():
    small, large = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    kept = {"lower": 0.3, "upper": 0.5, "delta": 1.0, "eps": 0.01}
    together = bounded_focus(torch.cat([small, large]), **kept)
    torch.testing.assert_close(together, (bounded_focus(small, **kept) + bounded_focus(large, **kept)) / 2)


def test_acl_gan_composes_by_the_mask():
    method, x = build(ACLGAN), images()
    with torch.no_grad():
        last = method.G["B"].decoder.last
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.5, 30.0]))
        z = torch.zeros(3, method.config.style)
        healed, mask = method.compose(x, "B", z)
        torch.testing.assert_close(mask, torch.ones_like(mask))
        torch.testing.assert_close(healed, torch.full_like(x, 0.5).tanh())
        last.bias.copy_(torch.tensor([0.5, -30.0]))
        torch.testing.assert_close(method.compose(x, "B", z)[0], x)
        last.bias.copy_(torch.tensor([0.5, 0.2]))
        m = (torch.tensor(0.2).tanh() + 1) / 2
        torch.testing.assert_close(method.compose(x, "B", z)[0], m * torch.tensor(0.5).tanh() + (1 - m) * x)
        prediction = method.eval().predict(x)
        torch.testing.assert_close(prediction.maps["mask"], m.expand(3, 1, 32, 32))


def test_acl_gan_terms_are_their_equations():
    method, a, b = build(ACLGAN, lambda_gan=2.0, lambda_id=3.0), images(), images(2, seed=2)
    t = method.translate(a, b)
    D_b, D_a, D_p = (method.D[n] for n in "BAP")
    direct, round_trip = torch.cat([a, t.aa], 1), torch.cat([a, t.aba], 1)
    critic = method.critic_loss(a, b, t)
    fakes = (judged(D_a, t.aa, 0) + judged(D_a, t.aba, 0)) / 2
    torch.testing.assert_close(critic["healthy"], 2 * (judged(D_b, b, 1) + judged(D_b, t.ab, 0)))
    torch.testing.assert_close(critic["diseased"], 2 * (judged(D_a, a, 1) + fakes))
    torch.testing.assert_close(critic["pairs"], 0.2 * (judged(D_p, direct, 1) + judged(D_p, round_trip, 0)))
    losses = method.generator_loss(a, b, t)
    fooled = judged(D_b, t.ab, 1) + (judged(D_a, t.aa, 1) + judged(D_a, t.aba, 1)) / 2
    torch.testing.assert_close(losses["adv"], 2 * fooled)
    torch.testing.assert_close(losses["acl"], 0.2 * (judged(D_p, direct, 0) + judged(D_p, round_trip, 1)))
    again = (t.a_again - a).abs().mean() + (t.b_again - b).abs().mean()
    torch.testing.assert_close(losses["id"], 3 * again)
    assert losses["focus"].item() == pytest.approx(0.025 * naive_focus(t.mask, 0.3, 0.5, 0.001, 0.01), rel=1e-4)


def test_acl_gan_goes_both_ways_out_of_a():
    method, a, b = build(ACLGAN), images(), images(2, seed=2)
    torch.manual_seed(5)
    with torch.no_grad():
        t = method.translate(a, b)
        torch.manual_seed(5)
        z_b, z_a, z_aba = torch.randn(3, 3, method.config.style)
        torch.testing.assert_close(t.ab, method.compose(a, "B", z_b)[0])
        torch.testing.assert_close(t.aa, method.compose(a, "A", z_a)[0])
        torch.testing.assert_close(t.aba, method.compose(t.ab, "A", z_aba)[0])
        torch.testing.assert_close(t.a_again, method.compose(a, "A", method.G["E_A"](a))[0])
        torch.testing.assert_close(t.b_again, method.compose(b, "B", method.G["E_B"](b))[0])
        torch.testing.assert_close(method.heal(a), method.compose(a, "B", torch.zeros_like(z_b))[0])


# Council GAN


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


# CoGAN


def test_cogan_plays_two_log_games_from_one_z():
    method, a, b = build(CoGAN).eval(), images(), images(seed=2)
    b_z, a_z = method.draw(torch.randn(3, 8))
    ones, zeros = torch.ones(3, 1), torch.zeros(3, 1)
    critic, losses = method.critic_loss(a, b, a_z, b_z), method.generator_loss(a_z, b_z)
    for name, domain, x, fake in (("healthy", B, b, b_z), ("diseased", A, a, a_z)):
        of_x, of_fake = method.D(x, domain).sigmoid(), method.D(fake, domain).sigmoid()
        torch.testing.assert_close(critic[name], F.binary_cross_entropy(of_x, ones) + F.binary_cross_entropy(of_fake, zeros))
        torch.testing.assert_close(losses[name], F.binary_cross_entropy(of_fake, ones))


def test_cogans_two_pictures_share_their_trunk():
    method = build(CoGAN).eval()
    with torch.no_grad():
        method.G.last[B].load_state_dict(method.G.last[A].state_dict())
        b, a = method.draw(torch.randn(3, 8))
    assert torch.equal(a, b)


def test_cogan_finds_its_own_pictures():
    method = build(CoGAN, search_steps=200, search_starts=16).eval()
    with torch.no_grad():
        for p in method.G.parameters():
            p.add_(0.1 * torch.randn_like(p))
        pictures = method.draw(torch.randn(3, 8))
        for domain in (B, A):
            error = distance(pictures[domain], method.draw(method.search(pictures[domain], domain))[domain])
            spread = distance(pictures[domain], pictures[domain].mean(0))
            assert (error < 0.1 * spread).all()


def test_cogan_searches_better_the_longer_it_searches():
    x, errors = images(), []
    for steps in (0, 5, 40):
        method = build(CoGAN, search_steps=steps).eval()
        with torch.no_grad():
            errors.append(distance(x, method.draw(method.search(x, A))[A]))
    assert (errors[0] >= errors[1]).all()
    assert (errors[1] > errors[2]).all()


def test_cogan_begins_at_the_nearest_start():
    method, x = build(CoGAN, search_steps=0, search_starts=7).eval(), images()
    with torch.no_grad():
        starts = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
        found = method.search(x, B)
        for i in range(3):
            errors = [(x[i] - method.draw(z[None])[B][0]).square().mean().item() for z in starts]
            assert torch.equal(found[i], starts[errors.index(min(errors))])


def test_cogans_search_touches_neither_chance_nor_gradients_nor_weights():
    method, x = build(CoGAN).eval(), images()
    for p in method.parameters():
        p.grad = torch.ones_like(p)
    chance, state = torch.get_rng_state(), {k: v.clone() for k, v in method.state_dict().items()}
    with torch.no_grad():
        together, alone = method.search(x, A), method.search(x[1:2], A)
        assert not torch.is_grad_enabled()
    assert not together.requires_grad
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in method.parameters())


def test_cogan_heals_by_the_z_of_the_other_domain():
    method, x = build(CoGAN).eval(), images()
    with torch.no_grad():
        torch.testing.assert_close(method.heal(x), method.draw(method.search(x, A))[B])
        ill = method.translate_to(x, torch.ones(3, dtype=torch.int64))
        torch.testing.assert_close(ill, method.draw(method.search(x, B))[A])


# BiGAN


def test_bigan_plays_one_log_game_on_pairs():
    method, a, b = build(BiGAN), images(), images(2, seed=2)
    with torch.no_grad():
        ab, ba = torch.cat([a, method.to_healthy(a)], 1), torch.cat([method.to_diseased(b), b], 1)
        of_a, of_b = method.D(ab).sigmoid(), method.D(ba).sigmoid()
        critic, losses = method.critic_loss(ab, ba), method.generator_loss(ab, ba)
    torch.testing.assert_close(critic["of_b"], -of_b.log().mean())
    torch.testing.assert_close(critic["of_a"], -(1 - of_a).log().mean())
    torch.testing.assert_close(losses["of_b"], -(1 - of_b).log().mean())
    torch.testing.assert_close(losses["of_a"], -of_a.log().mean())


def test_bigan_shows_its_discriminator_diseased_before_healthy():
    method, seen = build(BiGAN), []
    forward = method.D.forward
    method.D.forward = lambda x: seen.append(x.detach()) or forward(x)
    step(method)
    a, b = images(), images(seed=2)
    for x in seen:  # (E(b), b), then (a, G(a))
        assert torch.equal(x[:3, 1:], b)
        assert torch.equal(x[3:, :1], a)
    assert len(seen) == 2
    fresh = build(BiGAN)
    with torch.no_grad():
        torch.testing.assert_close(seen[0][:3, :1], fresh.to_diseased(b))
        torch.testing.assert_close(seen[0][3:, 1:], fresh.to_healthy(a))


# Numbers of the papers


def test_fact_parameters_of_whole_methods_for_colour_images():
    """Council GAN is without the released program's style encoders, which no loss reaches: 2,779,328 a member."""

    def count(cls):
        with torch.device("meta"):
            return sum(p.numel() for p in cls(cls.Config(), Spec(channels=3)).parameters())

    assert count(UNIT) == 38_823_308
    assert count(ACLGAN) == 54_881_377
    assert count(CouncilGAN) == 115_834_176 - 4 * 2_779_328


def test_fact_recipes_hold_the_published_settings():
    found = {n: recipes.get(n) for n in ("unit", "acl-gan", "council-gan", "council-gan-male-to-female", "cogan-digits")}
    assert {n: (e.data.size, e.data.batch_size) for n, e in found.items()} == {
        "unit": (256, 1),
        "acl-gan": (256, 3),
        "council-gan": (128, 3),
        "council-gan-male-to-female": (256, 3),
        "cogan-digits": (28, 64),
    }
    unit, acl, council_, faces, cogan = (e.method for e in found.values())
    for m in (unit, acl, council_, faces):
        assert (m.lr, m.betas, m.weight_decay, m.halve_every) == (1e-4, (0.5, 0.999), 1e-4, 100_000)
    assert (unit.lambda_gan, unit.lambda_rec, unit.lambda_kl, unit.lambda_cyc, unit.lambda_kl_cyc) == (1, 10, 0.01, 10, 0.01)
    assert (unit.steps, acl.steps, council_.steps) == (1_000_000, 350_000, 1_500_000)
    assert (acl.lambda_gan, acl.lambda_acl, acl.lambda_id, acl.lambda_focus, acl.delta) == (1, 0.2, 1, 0.025, 0.001)
    assert (acl.lower, acl.upper, acl.g_steps, acl.style) == (0.3, 0.5, 2, 8)
    assert (council_.members, council_.masks, council_.style, council_.council_steps) == (4, 3, 64, 4)
    for m, weights_ in ((council_, (24, 12, 57, 10, 2.2)), (faces, (24, 4, 0.5, 0.5, 0))):
        assert (m.lambda_gan, m.lambda_council, m.lambda_size, m.lambda_binary, m.lambda_tv) == weights_
    assert (council_.council_start, council_.focus_start, faces.focus_start) == (10_000, 15_000, 50_000)
    assert (cogan.latent, cogan.lr, cogan.betas, cogan.weight_decay) == (100, 2e-4, (0.5, 0.999), 5e-4)


@pytest.mark.parametrize("name", METHODS)
def test_small_recipes_build_and_step_at_64_px(name):
    experiment = recipes.get(f"{name}-small")
    method = METHODS[name](experiment.method, Spec(height=64, width=64))
    x = F.interpolate(images(2), scale_factor=2)
    phase = method.phases()[0]
    losses = phase.step(repeat(Batch(x, healthy=x)), experiment.method.steps - 1, Optimisers(phase.optimisers))
    assert all(t.isfinite() for group in losses.values() for t in group.values())
    assert sum(p.numel() for p in method.parameters()) < 4_000_000


def test_parts_and_judged():
    maps = [torch.arange(10.0).view(5, 1, 1, 2), torch.arange(5.0).view(5, 1, 1, 1)]
    first, second = comparators.parts(maps, 2, 3)
    assert [m[:, 0, 0, 0].tolist() for m in (*first, *second)] == [[0, 2], [0, 1], [4, 6, 8], [2, 3, 4]]
    assert comparators.judged(first, 1).item() == pytest.approx((1 + 0 + 1 + 4) / 4 + (1 + 0) / 2)
