"""BiGAN (Donahue, Krähenbühl and Darrell, ICLR 2017) and ALI (Dumoulin et al., ICLR 2017), as CycleGAN's paper compares them.

One discriminator sees pairs: in BiGAN (x, E(x)) and (G(z), z). Where it cannot tell the two kinds apart, E and G invert each
other. CycleGAN's comparison puts an image of the other domain in the place of z: the pairs are (E(b), b) and (a, G(a)), and G
heals.

Symbols: a diseased image (set A), b healthy image (set B), G: A -> B, E: B -> A, D discriminator of pairs.

How we differ. From BiGAN and ALI: two domains instead of an image and a latent vector, so E is deterministic, as BiGAN's, and
not a draw, as ALI's. Networks and schedule are CycleGAN's, whose paper says so of all its baselines but CoGAN. The map and the
score are ours. Nothing but D asks for G(a) to resemble a.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from ..losses.adversarial import logarithmic
from ..networks.cyclegan import Critic, Generator, check_sizes
from ..types import Batch, Needs, Spec
from .alternating import AlternatingGAN
from .base import Losses, Optimisers, Reach
from .checks import require_positive, require_share
from .comparators import by_target


class BiGAN(AlternatingGAN):
    title = "BiGAN / ALI between two sets of images (Donahue et al., Dumoulin et al., ICLR 2017)"
    needs = Needs.DISEASED_AND_HEALTHY
    reaches: ClassVar[Reach] = "all"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Networks and schedule are CycleGAN's."""

        steps: int = 200_000  # CycleGAN: 200 epochs, batch 1; so many steps for sets of 1,000 images
        width: int = 64  # CycleGAN
        blocks: int = 9  # CycleGAN: 9 for 256 px and more, 6 for 128 px
        critic_width: int = 64  # CycleGAN
        critic_layers: int = 3  # CycleGAN: 70 x 70 patches
        n_critic: int = 1  # BiGAN: D, G and E move at every step
        lr: float = 2e-4  # BiGAN and CycleGAN
        betas: tuple[float, float] = (0.5, 0.999)  # BiGAN and CycleGAN
        decay: Literal["linear", "constant"] = "linear"  # CycleGAN
        decay_share: float = 0.5  # CycleGAN: the last 100 of 200 epochs
        score: Literal["mean", "max"] = "mean"  # ours: the papers have no score

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "blocks", "critic_width", "critic_layers", "n_critic", "lr")
            require_share(self, "decay_share")

    config: BiGAN.Config

    def __init__(self, config: BiGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers)
        generators = (Generator(spec.channels, width=config.width, blocks=config.blocks) for _ in range(2))
        self.G = nn.ModuleDict(dict(zip(("G", "E"), generators, strict=True)))  # they play together: one optimiser
        self.D = Critic(2 * spec.channels, width=config.critic_width, layers=config.critic_layers)

    def to_healthy(self, a: Tensor) -> Tensor:
        return self.G["G"](a).to(a.dtype)

    def to_diseased(self, b: Tensor) -> Tensor:
        return self.G["E"](b).to(b.dtype)

    def judge(self, ab: Tensor, ba: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits of the pairs (E(b), b) and (a, G(a)), which are (N, 2 C, H, W) each, diseased before healthy."""
        source = self.D(torch.cat([ba, ab]))
        return source[: len(ba)], source[len(ba) :]

    def critic_loss(self, ab: Tensor, ba: Tensor) -> Losses:  # the maximum of V(D, E, G)
        of_b, of_a = self.judge(ab.detach(), ba.detach())
        return Losses(of_b=logarithmic(of_b, 1), of_a=logarithmic(of_a, 0))

    def generator_loss(self, ab: Tensor, ba: Tensor) -> Losses:  # the minimum, targets inverted
        of_b, of_a = self.judge(ab, ba)
        return Losses(of_b=logarithmic(of_b, 0), of_a=logarithmic(of_a, 1))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        with torch.set_grad_enabled(self.moves(k)):
            ab = torch.cat([a, self.to_healthy(a)], dim=1)
            ba = torch.cat([self.to_diseased(b), b], dim=1)
        return self.alternate(k, optimisers, lambda: self.critic_loss(ab, ba), lambda: self.generator_loss(ab, ba))

    def heal(self, image: Tensor) -> Tensor:
        return self.to_healthy(image)

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        return by_target(image, label, self.heal, self.to_diseased)

    @classmethod
    def tiny(cls) -> tuple[BiGAN.Config, Spec]:
        config = cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=2)
        return config, Spec(height=32, width=32)
