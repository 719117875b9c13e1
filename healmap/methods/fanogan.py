"""f-AnoGAN (Schlegl et al., Medical Image Analysis 54, 2019): a GAN learns to draw healthy images, then an encoder learns to
find the z of an image.

What the GAN cannot draw is missing from the reconstruction G(E(x)): the residual is the map, and the score adds how differently
the critic sees the two. Two phases: WGAN-GP, then the encoder ("izi_f"), with generator and critic as they are.

Symbols: x healthy image, z latent vector from N(0, 1), G generator, D critic, f(x) its numbers before the last layer, E
encoder.

    L_D = E[D(G(z))] - E[D(x)] + 10 E[(|∇D(x̂)| - 1)²],   L_G = -E[D(G(z))]
    L_E = A(x) on average over images
    A(x) = mean (x - G(E(x)))² + κ mean (f(x) - f(G(E(x))))²,   the first over pixels, the second over features

Published for patches of 64 px, and both ways are here: whole images (``patch=0``), or patches of images of any size, drawn at
random in training and stitched at inference. At the patch's own size they are the same.

How we differ. From the authors' code: steps are counted over both phases; G is judged by the images that its critic has just
seen; batches are full. Ours: other sizes than 64 px, the choice of patches and their stitching, the map's scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import average, gradient_penalty
from ..losses.precision import at_least_float32
from ..networks.fanogan import Critic, Encoder, Generator, check_size
from ..types import Batch, Needs, Prediction, Spec
from .alternating import AlternatingGAN
from .base import REDUCE, Losses, Optimisers, Phase, amplitude_map
from .checks import require_betas, require_positive, require_unset
from .optim import adam, rmsprop
from .patches import Stitch, Where, check_patch, corners, cut, draw, occupied

AT_ONCE = 64  # patches in one pass at inference, or as many as there are images


class FAnoGAN(AlternatingGAN):
    title = "f-AnoGAN (Schlegl et al., Medical Image Analysis 2019)"
    needs = Needs.HEALTHY
    averaged = ("E",)  # not G: the encoder is fitted to the very generator it was shown

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's."""

        steps: int = 100_000  # of both phases; ours: the code has 7 passes over its data, then 50,000
        encoder_share: float = 0.5  # share of the steps that are the encoder's, the last ones
        patch: int = 0  # side of the patches, pixels; 0: whole images, which at 64 px is what was published
        patches: int = 4  # ours: drawn from each image of a batch
        stride: int = 0  # ours: most pixels between patches at inference; 0: half a patch
        foreground: Where = "auto"  # ours: patches that hold something of the body; all: any
        latent: int = 128  # authors' code
        width: int = 64  # authors' code: channels at full resolution, for G, D and E
        encoder_range: Literal["tanh", "unbounded"] = "tanh"  # paper: E reaches one standard deviation of z
        lambda_gp: float = 10.0  # authors' code
        n_critic: int = 5  # authors' code: G moves at every fifth step
        lr: float = 1e-4  # authors' code, for G and D
        betas: tuple[float, float] = (0.0, 0.9)  # authors' code
        kappa: float = 1.0  # paper: weight of the critic's features
        encoder_lr: float = 5e-5  # authors' code
        score: Literal["anomaly", "mean", "max"] = "anomaly"  # A(x); mean of the map: Fixed-Point GAN's choice; its maximum

        def __post_init__(self) -> None:
            require_positive(self, "steps", "patches", "latent", "width", "n_critic", "lr", "encoder_lr")
            require_betas(self)
            if min(self.patch, self.stride, self.lambda_gp, self.kappa) < 0:
                raise ConfigError("a setting is negative", hint="patch, stride, lambda_gp and kappa are >= 0")
            if not 0 < self.encoder_share < 1 or self.steps < 2:
                what = f"encoder_share {self.encoder_share} of {self.steps} steps leaves a phase without any"
                raise ConfigError(what, hint="use 2 steps or more, and for example 0.5")
            if not self.patch:
                reason = "with patch=0 the networks see whole images"
                require_unset(self, "patches", "stride", "foreground", reason=reason, hint="leave it out, or set patch=64")
            if 0 < self.patch < self.stride:
                what = f"patches of {self.patch} pixels, {self.stride} apart, leave gaps"
                raise ConfigError(what, hint=f"use {self.patch // 2}, half a patch")

    config: FAnoGAN.Config

    def __init__(self, config: FAnoGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.size = (config.patch, config.patch) if config.patch else (spec.height, spec.width)
        check_size(*self.size)
        check_patch(config.patch, spec.height, spec.width)
        self.G = Generator(spec.channels, self.size, latent=config.latent, width=config.width)
        self.D = Critic(spec.channels, self.size, width=config.width)
        bounded = config.encoder_range == "tanh"
        self.E = Encoder(spec.channels, self.size, latent=config.latent, width=config.width, bounded=bounded)

    def shown(self, image: Tensor) -> Tensor:
        """What the networks see of a batch while they learn: its images, or patches of them."""
        if not self.config.patch:
            return image
        return draw(image, self.size, self.config.patches, self.config.foreground)

    # Phase 1: WGAN-GP

    def critic_loss(self, x: Tensor, fake: Tensor, alpha: Tensor | None = None) -> Losses:
        source = self.D(torch.cat([x, fake]))
        return Losses(
            real=-average(source[: len(x)]),
            fake=average(source[len(x) :]),
            gp=self.config.lambda_gp * gradient_penalty(self.D, x, fake, alpha),
        )

    def generator_loss(self, fake: Tensor) -> Losses:
        return Losses(adv=-average(self.D(fake)))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        x = self.shown(next(batches).image)
        with torch.set_grad_enabled(self.moves(k)):
            fake = self.G(torch.randn(len(x), self.config.latent, device=x.device, dtype=x.dtype)).to(x.dtype)
        return self.alternate(k, optimisers, lambda: self.critic_loss(x, fake.detach()), lambda: self.generator_loss(fake))

    # Phase 2: the encoder

    def reconstruct(self, x: Tensor) -> Tensor:
        """G(E(x)): (N, C, h, w) in [-1, 1] -> the same."""
        return self.G(self.E(x)).to(x.dtype)

    def residuals(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The two means of A(x) for images and their reconstructions y, (N,) each; no gradient into x."""
        with torch.no_grad():
            seen = at_least_float32(self.D.features(x))
        of_pixels = at_least_float32(y - x).square().flatten(1).mean(1)
        of_features = (at_least_float32(self.D.features(y)) - seen).square().mean(1)
        return of_pixels, of_features

    def encoder_loss(self, x: Tensor) -> Losses:  # izi_f
        of_pixels, of_features = self.residuals(x, self.reconstruct(x))
        return Losses(image=of_pixels.mean(), features=self.config.kappa * of_features.mean())

    def encoder_step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        self.G.eval()  # its stored statistics, as at inference; the loop has just put the whole method in training mode
        losses = {"E": self.encoder_loss(self.shown(next(batches).image))}
        optimisers.descend("E", losses["E"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        cfg, build = self.config, partial(adam, lr=self.config.lr, betas=self.config.betas)
        last = min(max(1, round(cfg.encoder_share * cfg.steps)), cfg.steps - 1)
        players = {"G": build(self.G.parameters()), "D": build(self.D.parameters())}
        encoder = {"E": rmsprop(self.E.parameters(), lr=cfg.encoder_lr)}
        return [
            Phase(name="adversarial", step=self.step, steps=cfg.steps - last, optimisers=players, ready=False),
            Phase(name="encoder", step=self.encoder_step, steps=last, optimisers=encoder),
        ]

    # Inference

    def judge(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction (N, C, H, W) and A(x) (N,), which for patches is the mean of theirs, in bounded memory."""
        cfg = self.config
        places = corners((self.spec.height, self.spec.width), self.size, cfg.stride or max(1, cfg.patch // 2))
        top, left = zip(*places, strict=True)
        weight = at_least_float32(occupied(image, self.size, cfg.foreground)[:, top, left].T.to(image.dtype))  # (K, N), 0 or 1
        stitch, total = Stitch(image), torch.zeros_like(weight[0])
        together = max(1, AT_ONCE // len(image))
        for first in range(0, len(places), together):
            some, factor = places[first : first + together], weight[first : first + together]
            x = cut(image, some, self.size)
            y = self.reconstruct(x)
            of_pixels, of_features = self.residuals(x, y)
            stitch.add(y, some, factor)
            total += (factor * (of_pixels + cfg.kappa * of_features).view_as(factor)).sum(0)
        return stitch.mean(), total / weight.sum(0)

    def heal(self, image: Tensor) -> Tensor:
        return self.judge(image)[0]

    def predict(self, image: Tensor) -> Prediction:
        healed, anomaly = self.judge(image)
        anomaly_map = amplitude_map(image, healed)
        score = anomaly if self.config.score == "anomaly" else REDUCE[self.config.score](anomaly_map.flatten(1))
        return Prediction(score.to(image.dtype), anomaly_map, healed)

    @classmethod
    def tiny(cls) -> tuple[FAnoGAN.Config, Spec]:
        return cls.Config(steps=8, latent=8, width=4, n_critic=2), Spec(height=32, width=32)
