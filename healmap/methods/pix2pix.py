"""pix2pix (Isola et al., CVPR 2017): a diseased image -> its own healthy twin, learnt from pairs.

Pairs exist for made-up lesions only. There it is the supervised bound: what the other methods lose beside it is the price of
having no pairs. The critic sees input and output together and judges patches.

Symbols: x input, y its healthy twin, G the U-Net, D the PatchGAN (logits).

How we differ. From the paper: no noise at inference, where an image gets one answer (dropout is for training); no random crop.
From the authors' code: statistics are always those of the image, which at their batch of one they are too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import logarithmic
from ..losses.pixels import l1
from ..networks.cyclegan import check_sizes
from ..networks.pix2pix import Critic, Generator, levels_for
from ..types import Batch, Needs, Spec
from .alternating import AlternatingGAN
from .base import Losses, Optimisers
from .checks import require_positive, require_share
from .schedules import Decay


class Pix2Pix(AlternatingGAN):
    title = "pix2pix (Isola et al., CVPR 2017)"
    needs = Needs.PAIRED

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the paper's."""

        n_critic: ClassVar[int] = 1  # paper: one step of D, one of G

        steps: int = 80_000  # paper: 200 passes, batch 1; so many steps for 400 pairs
        width: int = 64  # paper
        levels: int = 8  # paper, for 256 px; fewer where the size cannot be halved as often
        dropout: float = 0.5  # paper
        critic_width: int = 64  # paper
        critic_layers: int = 3  # paper: 70 x 70 patches
        lambda_l1: float = 100.0  # paper
        lr: float = 2e-4  # paper, for G and D
        betas: tuple[float, float] = (0.5, 0.999)  # paper
        decay: Decay = "linear"  # authors' code: 100 passes constant, 100 to zero
        decay_share: float = 0.5  # authors' code
        score: Literal["max", "mean"] = "mean"  # ours: the paper has none

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "levels", "critic_width", "critic_layers", "lr")
            require_share(self, "decay_share")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout must lie in [0, 1), not {self.dropout}", hint="published: 0.5")
            if self.lambda_l1 < 0:
                raise ConfigError(f"lambda_l1 is negative: {self.lambda_l1}", hint="published: 100")

    config: Pix2Pix.Config

    def __init__(self, config: Pix2Pix.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers, "U-Net, which halves it twice at least")
        levels = levels_for(spec.height, spec.width, config.levels)
        self.G = Generator(spec.channels, width=config.width, levels=levels, dropout=config.dropout)
        self.D = Critic(2 * spec.channels, width=config.critic_width, layers=config.critic_layers)

    def critic_loss(self, x: Tensor, y: Tensor, fake: Tensor) -> Losses:  # eq. (1), halved
        source = self.D(torch.cat([x, x]), torch.cat([y, fake]))
        return Losses(real=logarithmic(source[: len(x)], 1) / 2, fake=logarithmic(source[len(x) :], 0) / 2)

    def generator_loss(self, x: Tensor, y: Tensor, fake: Tensor) -> Losses:  # eq. (4), log D instead of log(1 - D)
        return Losses(adv=logarithmic(self.D(x, fake), 1), l1=self.config.lambda_l1 * l1(y, fake))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        x, y = batch.image, cast(Tensor, batch.healthy)
        fake = self.heal(x)
        return self.alternate(
            k, optimisers, lambda: self.critic_loss(x, y, fake.detach()), lambda: self.generator_loss(x, y, fake)
        )

    def heal(self, image: Tensor) -> Tensor:
        return self.G(image).to(image.dtype)

    @classmethod
    def tiny(cls) -> tuple[Pix2Pix.Config, Spec]:
        return cls.Config(steps=20, width=4, critic_width=4, critic_layers=2), Spec(height=32, width=32)
