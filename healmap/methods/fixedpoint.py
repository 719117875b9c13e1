"""Fixed-Point GAN (Rahman Siddiquee et al., ICCV 2019): StarGAN that also learns to leave alone what needs no change.

Two additions to StarGAN. The generator is trained on same-domain translation as well, where its output must equal its input;
and it predicts a residual: T(x, c) = tanh(G(x, c) + x). A diseased image then changes only where it must, and the change is
the map.

Symbols: x image, c_x its domain code, c_y the target code (the batch's codes permuted), T(x, c) the translation, D the critic.

How we differ. From the paper: eq. (8) counts the two targets' fakes twice against the real images once. Taken literally
(``critic_fakes="paper"``) the critic then lowers its loss by subtracting a constant from every output, and its outputs run away
without bound; ours gives each target half the weight (``"both"``). What the paper leaves open (n_critic, Adam's betas, batch
size) is StarGAN's. From the authors' program: its critic sees cross-domain images only (``"released"``), ours both targets;
its score is the maximum of an 8-bit JPEG, ours of the map itself. ``delta`` and ``fixed_point`` switch the two additions, the
ablation of the paper's Table 4; with both off this is StarGAN. Written from the paper alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import average, gradient_penalty
from ..losses.pixels import l1
from ..types import Spec
from .base import Losses
from .conditional import ConditionalConfig, ConditionalGAN


class FixedPointGAN(ConditionalGAN):
    title = "Fixed-Point GAN (Rahman Siddiquee et al., ICCV 2019)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ConditionalConfig):
        """Defaults are the appendix's."""

        lambda_domain: float = 1.0  # appendix, all experiments
        lambda_cyc: float = 10.0  # appendix, all experiments
        lambda_id: float = 1.0  # appendix: CelebA 10, BRATS 0.1, PE 1
        delta: bool = True  # appendix: T = tanh(G + x); off: T = tanh(G)
        fixed_point: bool = True  # eqs. (3), (4), (5), (8) with same-domain translation; off: without
        # "both": the two targets of eq. (8), half a weight each; "paper": a whole weight each, as printed (the critic's outputs
        # drift without bound); "released": the permuted target only, the authors' code.
        critic_fakes: Literal["both", "paper", "released"] = "both"

        def __post_init__(self) -> None:
            super().__post_init__()
            if min(self.lambda_domain, self.lambda_cyc, self.lambda_id) < 0:
                raise ConfigError("a weight is negative", hint="lambda_domain, lambda_cyc and lambda_id are >= 0")

    config: FixedPointGAN.Config

    def translate(self, x: Tensor, c: Tensor) -> Tensor:  # appendix: tanh(G(x, c) + x)
        y = self.G(x, c).to(x.dtype)
        return torch.tanh(y + x if self.config.delta else y)

    def fakes(self, x: Tensor, c_x: Tensor, c_y: Tensor) -> Tensor:
        """T(x, c_y), then T(x, c_x) with fixed-point translation, in one pass: instance norm keeps images apart."""
        if not self.config.fixed_point:
            return self.translate(x, c_y)
        return self.translate(torch.cat([x, x]), torch.cat([c_y, c_x]))

    def critic_loss(self, x: Tensor, c_x: Tensor, fakes: Tensor, alpha: Tensor | None = None) -> Losses:  # eq. (6)
        cfg, n = self.config, len(x)
        cross = fakes[:n]
        seen = cross if cfg.critic_fakes == "released" else fakes
        source, domain = self.D(torch.cat([x, seen]))
        return Losses(
            real=-average(source[:n]),  # (8)
            fake=average(source[n:]) * (len(seen) / n if cfg.critic_fakes == "paper" else 1),  # (8)
            domain=cfg.lambda_domain * self.domain_loss(domain[:n], c_x),  # (2)
            gp=cfg.lambda_gp * gradient_penalty(self.D.source, x, cross, alpha),  # (8)
        )

    def generator_loss(self, x: Tensor, c_x: Tensor, c_y: Tensor, fakes: Tensor) -> Losses:  # eq. (7)
        cfg, n = self.config, len(x)
        targets = torch.cat([c_y, c_x])[: len(fakes)]
        originals, origins = (x, c_x) if len(fakes) == n else (torch.cat([x, x]), torch.cat([c_x, c_x]))
        times = len(fakes) / n  # the equations add targets, a mean averages them
        source, domain = self.D(fakes)
        losses = Losses(
            adv=-times * average(source),  # (8)
            domain=cfg.lambda_domain * times * self.domain_loss(domain, targets),  # (3)
            cyc=cfg.lambda_cyc * times * l1(self.translate(fakes, origins), originals),  # (4)
        )
        if cfg.fixed_point:
            losses["id"] = cfg.lambda_id * l1(fakes[n:], x)  # (5)
        return losses

    @classmethod
    def tiny(cls) -> tuple[FixedPointGAN.Config, Spec]:
        return cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3, n_critic=2), Spec(height=32, width=32)
