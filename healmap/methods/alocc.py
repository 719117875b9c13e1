"""ALOCC (Sabokrou et al., CVPR 2018): a denoiser and a discriminator that learn against each other, on healthy images alone.

The refiner R takes noise away so well that D cannot tell R(x + η) from x. What R was never shown it spoils, and D, which has
seen spoilt images all along, says so: the score is minus the logit of D(R(x)), which ranks images as the paper's 1 - D(R(x)).

Symbols: x image, η noise, x̃ = x + η clipped to [-1, 1], R refiner, D discriminator.

How we differ. From the authors' code: the reconstruction term is the paper's squared error (``reconstruction="released"`` is
theirs), D judges R(x) as the paper says (``judged="raw"`` is their test), noise is drawn anew at every step, not once, images
come in a new order in every pass, and inference takes batch norm's stored statistics (``statistics="image"`` is their test
shown one image at a time). Their MNIST lies in [0, 1], under a tanh; ours, as all images, in [-1, 1], with noise in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import logarithmic
from ..losses.pixels import mse
from ..losses.precision import at_least_float32
from ..networks.alocc import Discriminator, Refiner, check_sizes
from ..networks.batchnorm import Statistics
from ..types import Batch, Needs, Prediction, Spec
from .base import HealingMethod, Losses, Optimisers, Phase
from .checks import require_positive
from .optim import rmsprop


class ALOCC(HealingMethod):
    title = "ALOCC (Sabokrou et al., CVPR 2018)"
    needs = Needs.HEALTHY
    localises = False
    averaged: ClassVar[tuple[str, ...]] = ()  # the score is a standing of the two networks, not of their means

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's where it and the paper agree."""

        steps: int = 1_840  # authors' code: 40 epochs, batch 128; so many steps for the 6,000 images of a digit of MNIST
        width: int = 32  # authors' code
        critic_width: int = 16  # authors' code
        noise: float = 0.31  # authors' code: deviation 0.155 of MNIST's [0, 1]; 0.155 for video, which is in [-1, 1] as ours
        r_steps: int = 2  # authors' code, which notes that the paper has it otherwise
        lambda_rec: float = 0.2  # authors' code
        reconstruction: Literal["squared", "released"] = "squared"  # paper; released: see ``reconstruction_loss``
        lr: float = 2e-3  # authors' code
        statistics: Statistics = "stored"  # ours; image: the authors' test, shown one image at a time
        judged: Literal["refined", "raw"] = "refined"  # paper: D(R(x)); raw: D(x), the authors' test
        # logit: minus D's, which ranks as the paper's 1 - D (posterior) but never rounds to 1, where all images are one
        score: Literal["logit", "posterior"] = "logit"

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "critic_width", "r_steps", "lr")
            if min(self.noise, self.lambda_rec) < 0:
                raise ConfigError("a setting is negative", hint="noise and lambda_rec are >= 0")

    config: ALOCC.Config

    def __init__(self, config: ALOCC.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width)
        size = (spec.height, spec.width)
        self.R = Refiner(spec.channels, width=config.width, statistics=config.statistics)
        self.D = Discriminator(spec.channels, size, width=config.critic_width, statistics=config.statistics)

    def noisy(self, x: Tensor) -> Tensor:
        return (x + self.config.noise * torch.randn_like(x)).clamp(-1, 1)

    def critic_loss(self, x: Tensor, refined: Tensor) -> Losses:
        return Losses(real=logarithmic(self.D(x), 1), fake=logarithmic(self.D(refined.detach()), 0))

    def refiner_loss(self, x: Tensor, x_noisy: Tensor, refined: Tensor) -> Losses:
        return Losses(
            adv=logarithmic(self.D(refined), 1),
            rec=self.config.lambda_rec * self.reconstruction_loss(x, x_noisy, refined),
        )

    def reconstruction_loss(self, x: Tensor, x_noisy: Tensor, refined: Tensor) -> Tensor:
        """Mean over batch and pixels. squared: (x - R(x̃))². released: the cross-entropy of the authors' code, which takes R's
        output, a tanh, for a logit and the noisy image for its target, and so is not least where R(x̃) is x."""
        refined = at_least_float32(refined)
        if self.config.reconstruction == "squared":
            return mse(x, refined)
        return F.binary_cross_entropy_with_logits(refined, x_noisy.to(refined.dtype))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        x = next(batches).image
        x_noisy = self.noisy(x)
        refined = self.R(x_noisy)  # serves D's step and R's first
        losses = {"D": self.critic_loss(x, refined)}
        optimisers.descend("D", losses["D"].total)
        for again in range(self.config.r_steps):
            if again:
                refined = self.R(x_noisy)
            losses["R"] = self.refiner_loss(x, x_noisy, refined)
            optimisers.descend("R", losses["R"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        optimisers = {name: rmsprop(self.get_submodule(name).parameters(), lr=self.config.lr) for name in ("R", "D")}
        return [Phase(name="adversarial", step=self.step, steps=self.config.steps, optimisers=optimisers)]

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.R(image).to(image.dtype)

    def predict(self, image: Tensor) -> Prediction:
        healed = self.heal(image)
        logit = at_least_float32(self.D(healed if self.config.judged == "refined" else image)).flatten()
        return Prediction(torch.sigmoid(-logit) if self.config.score == "posterior" else -logit, None, healed)

    @classmethod
    def tiny(cls) -> tuple[ALOCC.Config, Spec]:
        return cls.Config(steps=20, width=4, critic_width=4), Spec(height=32, width=32)
