"""What the image-to-image comparators UNIT, ACL-GAN, Council GAN and CoGAN share: two unpaired sets, Adam with weight decay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import least_squares
from ..networks.munit import MultiScaleDiscriminator, Padding
from ..types import Batch, Needs
from .base import HealingMethod, Losses, Optimisers, Phase
from .checks import require_positive
from .optim import adam


@dataclass(frozen=True, kw_only=True)
class MunitConfig:
    """Settings of the three that are built from MUNIT's networks; the defaults are those that the released programs share."""

    steps: int = 1_000_000  # UNIT's program
    width: int = 64  # all three programs: channels of the encoder's first layer
    blocks: int = 4  # UNIT's and ACL-GAN's programs: residual blocks of encoder and decoder
    critic_width: int = 64  # all three programs
    critic_layers: int = 4  # all three programs: layers of a discriminator, each a halving
    scales: int = 3  # UNIT's and ACL-GAN's programs: image sizes that are looked at, each half the one before
    lr: float = 1e-4  # all three programs
    betas: tuple[float, float] = (0.5, 0.999)  # all three programs
    weight_decay: float = 1e-4  # all three programs
    halve_every: int = 100_000  # all three programs: steps between halvings of the learning rate; 0: never
    score: Literal["mean", "max"] = "mean"  # ours: none of the papers has a score

    def __post_init__(self) -> None:
        require_positive(self, "steps", "width", "blocks", "critic_width", "critic_layers", "scales", "lr")
        require_not_negative(self, "weight_decay", "halve_every")


class TwoSetsGAN(HealingMethod):
    """Subclasses have networks ``G`` and ``D``, and settings steps, lr, betas, weight_decay and halve_every.

    Domain 1 is set A, the diseased images a; domain 0 is set B, the healthy images b.
    """

    needs = Needs.DISEASED_AND_HEALTHY
    averaged: ClassVar[tuple[str, ...]] = ("G",)
    players: ClassVar[tuple[str, ...]] = ("G", "D")  # networks with an optimiser each

    @abstractmethod
    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        """One iteration of the paper."""

    def phases(self) -> Sequence[Phase]:
        cfg = self.config
        optimisers = {n: adam(self.get_submodule(n).parameters(), lr=cfg.lr, betas=cfg.betas) for n in self.players}
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["weight_decay"] = cfg.weight_decay
        return [Phase(name="adversarial", step=self.step, steps=cfg.steps, optimisers=optimisers, lr_scale=self.lr_scale)]

    def lr_scale(self, k: int, total: int) -> float:
        return 0.5 ** (k // self.config.halve_every) if self.config.halve_every else 1.0


def discriminator(
    config: MunitConfig, channels: int, *, padding: Padding = "reflect", council: bool = False
) -> MultiScaleDiscriminator:
    """For images, or pairs of them side by side, of so many channels; freshly drawn."""
    layers, scales = config.critic_layers, config.scales
    return MultiScaleDiscriminator(
        channels, width=config.critic_width, layers=layers, scales=scales, padding=padding, council=council
    )


def beside(image: Tensor, other: Tensor) -> Tensor:
    """The pair (image, other), (N, 2 C, H, W)."""
    return torch.cat([image, other], dim=1)


def judged(maps: Sequence[Tensor], target: float) -> Tensor:
    """Σ_scales E[(D_s - target)²]: least squares over a discriminator's patch maps, one (N, 1, h, w) per scale. Scalar >= 0."""
    return torch.stack([least_squares(m, target) for m in maps]).sum()


def parts(maps: Sequence[Tensor], *counts: int) -> list[list[Tensor]]:
    """The maps of several image sets that went through a discriminator in one pass, set by set."""
    return [list(part) for part in zip(*(m.split(counts) for m in maps), strict=True)]


def by_target(
    image: Tensor, label: Tensor, to_healthy: Callable[[Tensor], Tensor], to_diseased: Callable[[Tensor], Tensor]
) -> Tensor:
    """Images (N, C, H, W) whose target (N,) is 0 through the first, the others through the second."""
    out = torch.empty_like(image)
    for chosen, translate in ((label == 0, to_healthy), (label != 0, to_diseased)):
        if chosen.any():
            out[chosen] = translate(image[chosen])
    return out


def require_not_negative(config: object, *names: str) -> None:
    """Raises ConfigError unless every named setting is at least zero."""
    for name in names:
        value = getattr(config, name)
        if value < 0:
            raise ConfigError(f"{name} must be at least 0, not {value}", hint="0 turns it off")
