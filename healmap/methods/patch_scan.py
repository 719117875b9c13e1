"""The patch-scan GAN (Alex et al., SPIE Medical Imaging 2017): how real the critic finds each patch of an image.

A GAN learns to draw healthy patches. Its generator is then thrown away, and the critic slides over the image: what it takes for
made is called diseased. Symbols: x healthy patch, z latent vector from N(0, 1), G generator, D the critic's logit of "real".

    L_D = -E[log σ(D(x))] - E[log(1 - σ(D(G(z))))],   L_G = -E[log σ(D(G(z)))]
    map(p) = 1 - σ(D(patch around p)),   score: maximum of the map after smoothing

At the GAN's optimum the critic says 0.5 to whatever is healthy, and what it says of anything else is nobody's decision: results
depend on when training ends.

How we differ. Only the abstract and what others say of the paper were at hand: patch size, networks, loss, schedule and score
are ours. The paper cut its patches outside the lesions of diseased patients, for which masks are needed; here they come from
images known to be healthy. No image is judged by the statistics of others: the critic has no norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import logarithmic
from ..losses.precision import at_least_float32
from ..networks.patch_scan import Critic, Generator, check_side
from ..types import Batch, Needs, Prediction, Spec
from .base import REDUCE, Losses, Method, Optimisers, Phase
from .blur import gaussian_blur
from .checks import require_betas, require_positive
from .optim import adam
from .patches import Where, at_centres, check_patch, draw, occupied


class PatchScanGAN(Method):
    title = "Patch-scan GAN (Alex et al., SPIE Medical Imaging 2017)"
    needs = Needs.HEALTHY
    averaged = ("D",)
    training_only = ("G",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The paper's settings are not known. All are ours, DCGAN's where it has them."""

        steps: int = 20_000  # ours: with the recipe's batches about 100 passes over the paper's 13,000 patches
        patch: int = 32  # ours: side of the patches, pixels; 8, 16, 32, 64, ...
        patches: int = 4  # ours: drawn from each image of a batch
        stride: int = 1  # paper: every pixel is the centre of a patch; a divisor of patch / 4, more is faster
        foreground: Where = "auto"  # ours: patches that hold something of the body; all: any
        latent: int = 100  # DCGAN
        width: int = 64  # channels of the critic's first and before the generator's last layer
        lr: float = 2e-4  # DCGAN
        betas: tuple[float, float] = (0.5, 0.999)  # DCGAN
        smooth: float = 4.0  # ours: standard deviation, pixels, of the Gaussian before the score; 0: none
        score: Literal["max", "mean"] = "max"  # ours

        def __post_init__(self) -> None:
            require_positive(self, "steps", "patches", "stride", "latent", "width", "lr")
            require_betas(self)
            if self.smooth < 0:
                raise ConfigError(f"smooth must be at least 0, not {self.smooth}", hint="0 turns it off")

    config: PatchScanGAN.Config

    def __init__(self, config: PatchScanGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_side(config.patch)
        check_patch(config.patch, spec.height, spec.width)
        self.size = (config.patch, config.patch)
        self.G = Generator(spec.channels, config.patch, latent=config.latent, width=config.width)
        self.D = Critic(spec.channels, config.patch, width=config.width)
        if self.D.step % config.stride:
            what = f"stride {config.stride} does not divide the critic's own step of {self.D.step} pixels"
            raise ConfigError(what, hint=f"use {self.D.step}, or 1 for every pixel")

    def critic_loss(self, x: Tensor, fake: Tensor) -> Losses:
        source = self.D(torch.cat([x, fake.detach()]))
        return Losses(real=logarithmic(source[: len(x)], 1), fake=logarithmic(source[len(x) :], 0))

    def generator_loss(self, fake: Tensor) -> Losses:  # the form that does not saturate
        return Losses(adv=logarithmic(self.D(fake), 1))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        cfg = self.config
        x = draw(next(batches).image, self.size, cfg.patches, cfg.foreground)
        fake = self.G(torch.randn(len(x), cfg.latent, device=x.device, dtype=x.dtype)).to(x.dtype)
        losses = {"D": self.critic_loss(x, fake)}
        optimisers.descend("D", losses["D"].total)
        losses["G"] = self.generator_loss(fake)
        optimisers.descend("G", losses["G"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        build = partial(adam, lr=self.config.lr, betas=self.config.betas)
        optimisers = {name: build(self.get_submodule(name).parameters()) for name in ("G", "D")}
        return [Phase(name="adversarial", step=self.step, steps=self.config.steps, optimisers=optimisers)]

    # Inference

    def anomaly_map(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1, H, W) in [0, 1]; 0 where a patch holds nothing of the body, which the critic never saw."""
        cfg = self.config
        made = torch.sigmoid(-at_least_float32(self.D.scan(image, cfg.stride)))
        made = made * occupied(image, self.size, cfg.foreground)[:, None, :: cfg.stride, :: cfg.stride]
        return at_centres(made, (image.shape[2], image.shape[3]), self.size, cfg.stride).to(image.dtype)

    def predict(self, image: Tensor) -> Prediction:
        anomaly_map = self.anomaly_map(image)
        smooth = gaussian_blur(anomaly_map, self.config.smooth).flatten(1)
        return Prediction(REDUCE[self.config.score](smooth).to(image.dtype), anomaly_map)

    @classmethod
    def tiny(cls) -> tuple[PatchScanGAN.Config, Spec]:
        return cls.Config(steps=20, patch=16, patches=2, stride=2, latent=8, width=4, smooth=1.0), Spec(height=32, width=32)
