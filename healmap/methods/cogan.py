"""CoGAN (Liu and Tuzel, NeurIPS 2016): two GANs that share layers draw the same content in two domains from one latent vector.

Nothing pairs the images; the shared layers, the generators' first and the discriminators' last, are what makes G_A(z) and
G_B(z) show the same. There is no encoder: an image is translated by searching the z whose picture in its own domain is nearest,
and showing that z in the other.

Symbols: a diseased image (set A), b healthy image (set B), z latent vector from N(0, 1), G_A, G_B generators, D_A, D_B
discriminators.

How we differ. From the authors' program for digits: a tanh ends the generators. From the paper: the search is Adam, not L-BFGS,
from the nearest of some fixed z and for a fixed number of steps, each image for itself. The generators' batch norm takes stored
statistics then: those of the one image would be another function than the one that was trained, and those of the batch would
mix images. The map and the score are ours. The map holds everything that the search does not find, disease or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.optim import Adam

from ..errors import ConfigError
from ..losses.adversarial import logarithmic
from ..losses.precision import at_least_float32
from ..networks.dcgan import CoupledDiscriminators, CoupledGenerators, check_sizes
from ..types import Batch, Spec
from .base import Losses, Optimisers, Reach
from .checks import require_positive
from .comparators import TwoSetsGAN, by_target, require_not_negative

B, A = 0, 1  # domains: healthy, diseased
SEED = 0  # of the search's starts: the same for every image, on every device


class CoGAN(TwoSetsGAN):
    title = "CoGAN (Liu and Tuzel, NeurIPS 2016)"
    reaches: ClassVar[Reach] = "all"
    averaged: ClassVar[tuple[str, ...]] = ()  # stored statistics belong to the weights they were gathered with

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' program's for digits and their edges."""

        steps: int = 25_000  # paper, section 4: digits
        latent: int = 100  # authors' program
        width: int = 128  # authors' program: channels before the generators' last layers
        layers: int = 3  # authors' program: doublings; at 64 px 4 start from 4 x 4
        critic_widths: tuple[int, ...] = (20, 50, 500)  # authors' program: all layers but the last halve the image
        lr: float = 2e-4  # authors' program
        betas: tuple[float, float] = (0.5, 0.999)  # authors' program
        weight_decay: float = 5e-4  # authors' program
        halve_every: int = 0  # authors' program: a constant rate
        search_steps: int = 100  # ours: steps of the search for z
        search_lr: float = 0.1  # ours
        search_starts: int = 64  # ours: fixed z, the nearest of which begins the search
        score: Literal["mean", "max"] = "mean"  # ours: the paper has no score

        def __post_init__(self) -> None:
            require_positive(self, "steps", "latent", "width", "layers", "lr", "search_lr", "search_starts")
            require_not_negative(self, "weight_decay", "halve_every", "search_steps")
            if len(self.critic_widths) < 2 or min(self.critic_widths) < 1:
                raise ConfigError(f"critic_widths {self.critic_widths} are no layers", hint="two or more, published: 20,50,500")

    config: CoGAN.Config

    def __init__(self, config: CoGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        size = (spec.height, spec.width)
        check_sizes(*size, layers=config.layers, halvings=len(config.critic_widths) - 1)
        self.G = CoupledGenerators(spec.channels, size, latent=config.latent, width=config.width, layers=config.layers)
        self.D = CoupledDiscriminators(spec.channels, size, widths=config.critic_widths)

    def draw(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z: (N, latent) -> G_B(z), G_A(z), (N, C, H, W) in [-1, 1], in one pass through what they share."""
        h = self.G.shared(z)
        b, a = (torch.tanh(last(h).to(z.dtype)) for last in self.G.last)
        return b, a

    # Equations: the two GANs' games, the generators' side in the form that does not saturate

    def critic_loss(self, a: Tensor, b: Tensor, a_z: Tensor, b_z: Tensor) -> Losses:
        losses = Losses()
        for name, domain, x, fake in (("healthy", B, b, b_z), ("diseased", A, a, a_z)):
            source = self.D(torch.cat([x, fake.detach()]), domain)
            losses[name] = logarithmic(source[: len(x)], 1) + logarithmic(source[len(x) :], 0)
        return losses

    def generator_loss(self, a_z: Tensor, b_z: Tensor) -> Losses:
        return Losses(healthy=logarithmic(self.D(b_z, B), 1), diseased=logarithmic(self.D(a_z, A), 1))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        b_z, a_z = self.draw(torch.randn(len(a), self.config.latent, device=a.device, dtype=a.dtype))
        losses = {"D": self.critic_loss(a, b, a_z, b_z)}
        optimisers.descend("D", losses["D"].total)
        losses["G"] = self.generator_loss(a_z, b_z)
        optimisers.descend("G", losses["G"].total)
        return losses

    # Inference

    def search(self, x: Tensor, domain: int) -> Tensor:
        """The z, (N, latent), of the images of a domain: min_z E[(G(z) - x)²], each image for itself.

        Neither torch's random numbers nor any weight or gradient is touched. x: (N, C, H, W) in [-1, 1].
        """
        cfg = self.config
        starts = torch.randn(cfg.search_starts, cfg.latent, generator=torch.Generator().manual_seed(SEED)).to(x)
        z = starts[torch.stack([distance(x, y) for y in self.draw(starts)[domain]]).argmin(dim=0)]
        if not cfg.search_steps:
            return z
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            adam = Adam([z], lr=cfg.search_lr)  # number by number: images do not mix
            for _ in range(cfg.search_steps):
                (z.grad,) = torch.autograd.grad(distance(x, self.draw(z)[domain]).sum(), z)
                adam.step()
        return z.detach()

    def heal(self, image: Tensor) -> Tensor:
        return self.draw(self.search(image, A))[B]

    def make_ill(self, image: Tensor) -> Tensor:
        return self.draw(self.search(image, B))[A]

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        return by_target(image, label, self.heal, self.make_ill)

    @classmethod
    def tiny(cls) -> tuple[CoGAN.Config, Spec]:
        config = cls.Config(steps=20, latent=8, width=4, critic_widths=(4, 8, 16), search_steps=4, search_starts=4)
        return config, Spec(height=32, width=32)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of each image: x, y: (N, C, H, W), y may be one image (C, H, W). Returns (N,)."""
    return at_least_float32(x - y).square().flatten(1).mean(1)
