"""UNIT: its terms, noise in training only, shared blocks, one translation for both updates."""

from __future__ import annotations

import torch
from comparing import build, images, judged, parameters, step

from healmap import recipes
from healmap.methods.unit import UNIT, A, B


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


def test_fact_published_settings():
    found = recipes.get("unit")
    m = found.method
    assert (found.data.size, found.data.batch_size, m.steps) == (256, 1, 1_000_000)
    assert (m.lr, m.betas, m.weight_decay, m.halve_every) == (1e-4, (0.5, 0.999), 1e-4, 100_000)
    assert (m.lambda_gan, m.lambda_rec, m.lambda_kl, m.lambda_cyc, m.lambda_kl_cyc) == (1, 10, 0.01, 10, 0.01)
    assert parameters(UNIT) == 38_823_308
