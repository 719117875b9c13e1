"""ACL-GAN: its terms, the bounded focus, and both ways out of a set."""

from __future__ import annotations

import pytest
import torch
from comparing import build, images, judged, parameters

from healmap import recipes
from healmap.methods.aclgan import ACLGAN, bounded_focus


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


def test_fact_published_settings():
    found = recipes.get("acl-gan")
    m = found.method
    assert (found.data.size, found.data.batch_size, m.steps) == (256, 3, 350_000)
    assert (m.lr, m.betas, m.weight_decay, m.halve_every) == (1e-4, (0.5, 0.999), 1e-4, 100_000)
    assert (m.lambda_gan, m.lambda_acl, m.lambda_id, m.lambda_focus, m.delta) == (1, 0.2, 1, 0.025, 0.001)
    assert (m.lower, m.upper, m.g_steps, m.style) == (0.3, 0.5, 2, 8)
    assert parameters(ACLGAN) == 54_881_377
