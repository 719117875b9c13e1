"""Which readings of eq. (8) are blind to a constant added to the critic, as a Wasserstein critic must be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from healmap.methods.fixedpoint import FixedPointGAN


def adversarial(critic_fakes: str, shift: float) -> float:
    torch.manual_seed(0)
    config, spec = FixedPointGAN.tiny()
    method = FixedPointGAN(replace(config, critic_fakes=critic_fakes), spec)
    x, c_x = torch.rand(4, 1, spec.height, spec.width) * 2 - 1, torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    source = method.D.forward
    method.D.forward = lambda image: (source(image)[0] + shift, source(image)[1])  # type: ignore[method-assign]
    losses = method.critic_loss(x, c_x, method.fakes(x, c_x, 1 - c_x).detach(), torch.full((4, 1, 1, 1), 0.5))
    return float((losses["real"] + losses["fake"]).detach())


@pytest.mark.parametrize(("critic_fakes", "drift"), [("both", 0.0), ("released", 0.0), ("paper", 1.0)])
def test_a_constant_on_the_critic(critic_fakes: str, drift: float) -> None:
    change = adversarial(critic_fakes, -100.0) - adversarial(critic_fakes, 0.0)
    assert change == pytest.approx(-100.0 * drift, abs=1e-3)
