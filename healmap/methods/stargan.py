"""StarGAN (Choi et al., CVPR 2018): one generator translates an image into any domain; healing = translating to "healthy".

The generator sees the image and the target domain's code as constant planes. A Wasserstein critic tells real from translated
images and names their domain; translating back must return the original.

Symbols: x image, c_x its domain code, c_y the target code (the batch's codes permuted), G, D as in the paper.

How we differ. From the paper: nothing on purpose; the paper's disease read-out is that of Fixed-Point GAN. From the authors'
code: the learning rate really decays to zero (``decay="released"`` keeps their nearly inert schedule); instance statistics are
always those of the image, which is what their programs do in fact; grey images stay grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses.adversarial import average, gradient_penalty
from ..losses.pixels import l1
from ..types import Spec
from .base import Losses
from .conditional import ConditionalConfig, ConditionalGAN
from .schedules import Decay


class StarGAN(ConditionalGAN):
    title = "StarGAN (Choi et al., CVPR 2018)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ConditionalConfig):
        """Defaults are the paper's; where it is silent, the authors' code's."""

        lambda_cls: float = 1.0  # paper, all experiments
        lambda_rec: float = 10.0  # paper, all experiments
        decay: Decay = "linear"  # paper: constant, then linear to zero over the second half

    config: StarGAN.Config

    def translate(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(self.G(x, c).to(x.dtype))

    def fakes(self, x: Tensor, c_x: Tensor, c_y: Tensor) -> Tensor:
        return self.translate(x, c_y)

    def critic_loss(self, x: Tensor, c_x: Tensor, fakes: Tensor, alpha: Tensor | None = None) -> Losses:  # eq. (5)
        cfg, n = self.config, len(x)
        source, domain = self.D(torch.cat([x, fakes]))
        return Losses(
            real=-average(source[:n]),  # (8)
            fake=average(source[n:]),  # (8)
            domain=cfg.lambda_cls * self.domain_loss(domain[:n], c_x),  # (2)
            gp=cfg.lambda_gp * gradient_penalty(self.D.source, x, fakes, alpha),  # (8)
        )

    def generator_loss(self, x: Tensor, c_x: Tensor, c_y: Tensor, fakes: Tensor) -> Losses:  # eq. (6)
        cfg = self.config
        source, domain = self.D(fakes)
        return Losses(
            adv=-average(source),  # (8)
            domain=cfg.lambda_cls * self.domain_loss(domain, c_y),  # (3)
            rec=cfg.lambda_rec * l1(x, self.translate(fakes, c_x)),  # (4)
        )

    @classmethod
    def tiny(cls) -> tuple[StarGAN.Config, Spec]:
        return cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3, n_critic=2), Spec(height=32, width=32)
