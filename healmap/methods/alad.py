"""ALAD (Zenati et al., ICDM 2018): a bidirectional GAN that is also asked to come back, in images and in codes.

As in BiGAN an encoder and a generator of codes play against a discriminator of pairs of image and code. Two more
discriminators see an image beside its reconstruction, and a code beside its own. The score of an image is how far the second
one's features of (image, reconstruction) lie from those of (image, image).

Symbols: x image, z code from N(0, 1), E encoder, G generator, x̂ = G(E(x)), ẑ = E(G(z)), D_xz, D_xx, D_zz discriminators, f_xx
the features of D_xx before its last layer, b binary cross-entropy.

How we differ. From the authors' code: its spectral norm, D_zz and weight average, which its own text asks for, are on by
default or in the recipe. It stops early by the healthy validation images' mean score, after which it tests the last weights all
the same; our weights are chosen on validation images. G and E, and the three discriminators, are one optimiser each: their
losses touch the other's weights nowhere. Beyond 32 px halvings are added whose channels stay at 512 (ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses.adversarial import logarithmic
from ..losses.precision import at_least_float32
from ..networks.alad import Encoder, Generator, ImageLatentCritic, ImagesCritic, Joined, LatentsCritic, check_width
from ..networks.halvings import halvings
from ..types import Batch, Needs, Prediction, Spec
from .base import HealingMethod, Losses, Optimisers, Phase, amplitude_map
from .checks import require_betas, require_positive
from .optim import adam


class ALAD(HealingMethod):
    title = "ALAD (Zenati et al., ICDM 2018)"
    needs = Needs.HEALTHY
    localises = False
    averaged: ClassVar[tuple[str, ...]] = ("E", "G", "D_xx")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's for images of 32 x 32. Every term has weight 1."""

        steps: int = 20_000  # ours: the code asks for a number of epochs and stops early
        latent: int = 100  # authors' code
        width: int = 128  # authors' code: E's and G's; the discriminators' are in proportion
        spectral_norm: bool = True  # authors' text; off by default in their code
        latent_critic: bool = True  # D_zz: authors' text; off by default in their code
        joined: Joined = "height"  # authors' code: the two images of D_xx one below the other; channels: ours
        lr: float = 2e-4  # authors' code
        betas: tuple[float, float] = (0.5, 0.999)  # authors' code
        # features: the paper's A(x). logits, l1, l2: the code's three others, b(D_xx(x, x̂), 1), |x - x̂|₁ and |x - x̂|₂.
        score: Literal["features", "logits", "l1", "l2"] = "features"

        def __post_init__(self) -> None:
            require_positive(self, "steps", "latent", "lr")
            require_betas(self)
            check_width(self.width)

    config: ALAD.Config

    def __init__(self, config: ALAD.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        k, c, n = halvings(spec.height, spec.width), spec.channels, config.latent
        width, spectral = config.width, config.spectral_norm
        self.E = Encoder(c, n, halvings=k, width=width, spectral=spectral)
        self.G = Generator(c, n, halvings=k, width=width)
        self.D_xz = ImageLatentCritic(c, n, halvings=k, width=width, spectral=spectral)
        self.D_xx = ImagesCritic(c, spec.height, width=width, spectral=spectral, joined=config.joined)
        self.D_zz = LatentsCritic(n, width=width, spectral=spectral) if config.latent_critic else None

    def both_ways(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E(x), G(z), x̂, ẑ."""
        code, picture = self.E(x), self.G(z)
        return code, picture, self.G(code), self.E(picture)

    def critic_loss(self, x: Tensor, z: Tensor) -> Losses:
        """Each discriminator: the first pair real, the second made."""
        with torch.no_grad():
            code, picture, x_hat, z_hat = self.both_ways(x, z)
        losses = Losses(
            xz=logarithmic(self.D_xz(x, code), 1) + logarithmic(self.D_xz(picture, z), 0),
            xx=logarithmic(self.D_xx(x, x), 1) + logarithmic(self.D_xx(x, x_hat), 0),
        )
        if self.D_zz is not None:
            losses["zz"] = logarithmic(self.D_zz(z, z), 1) + logarithmic(self.D_zz(z, z_hat), 0)
        return losses

    def generator_loss(self, x: Tensor, z: Tensor) -> Losses:
        """G's terms and E's: G alone moves ``G``, E alone ``E``, both the cycles."""
        code, picture, x_hat, z_hat = self.both_ways(x, z)
        losses = Losses(
            G=logarithmic(self.D_xz(picture, z), 1),
            E=logarithmic(self.D_xz(x, code), 0),
            cyc_x=logarithmic(self.D_xx(x, x_hat), 1),
        )
        if self.D_zz is not None:
            losses["cyc_z"] = logarithmic(self.D_zz(z, z_hat), 1)
        return losses

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        losses = {}
        for name, loss in (("D", self.critic_loss), ("GE", self.generator_loss)):
            x = next(batches).image  # G and E see another batch than the discriminators
            z = torch.randn(len(x), self.config.latent, device=x.device, dtype=x.dtype)
            losses[name] = loss(x, z)
            optimisers.descend(name, losses[name].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        build = partial(adam, lr=self.config.lr, betas=self.config.betas)
        critics = [d for d in (self.D_xz, self.D_xx, self.D_zz) if d is not None]
        players = {"GE": (self.G, self.E), "D": critics}
        optimisers = {name: build([p for net in nets for p in net.parameters()]) for name, nets in players.items()}
        return [Phase(name="adversarial", step=self.step, steps=self.config.steps, optimisers=optimisers)]

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.G(self.E(image)).to(image.dtype)

    def score(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """(N,). Norms are sums over all features or pixels, as the authors': they grow with the image."""
        kind, apart = self.config.score, at_least_float32(x - x_hat).flatten(1)
        if kind == "l1":
            return apart.abs().sum(1)
        if kind == "l2":
            return torch.linalg.vector_norm(apart, dim=1)
        itself, made = at_least_float32(self.D_xx.features(torch.cat([x, x]), torch.cat([x, x_hat]))).chunk(2)
        if kind == "features":
            return (itself - made).abs().sum(1)
        return F.softplus(-at_least_float32(self.D_xx.last(made.to(x.dtype)))).flatten()

    def predict(self, image: Tensor) -> Prediction:
        """``maps["residual"]``: |x - x̂| / 2, (N, 1, H, W), ours. The method itself has no map."""
        healed = self.heal(image)
        return Prediction(self.score(image, healed), None, healed, {"residual": amplitude_map(image, healed)})

    @classmethod
    def tiny(cls) -> tuple[ALAD.Config, Spec]:
        return cls.Config(steps=20, latent=8, width=8), Spec(height=32, width=32)
