"""BiGAN: one game on pairs, diseased before healthy."""

from __future__ import annotations

import torch
from comparing import build, images, step

from healmap.methods.bigan import BiGAN


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
