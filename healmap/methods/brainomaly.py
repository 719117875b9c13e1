"""Brainomaly (Rahman Siddiquee et al., WACV 2024): any image -> healthy, from unlabelled images, by adding one map.

HealthyGAN's data and critic without its mask: the generator predicts what to add, one plane for all channels, and should add
nothing to an image known to be healthy. An adversary and a distance from the input in place of that identity term make it
SimGAN (Shrivastava et al., CVPR 2017), a distance between features of a trained network "feature loss + GAN" (Zhu et al., ICCV
2017, section 5.1): both are recipes of this method.

Symbols: A mixed set (unlabelled), B healthy set, T(x) = tanh(x + G(x)) the healed image, D critic, φ features.

How we differ. The paper's weights were not at hand; the losses and numbers are the authors' program's. From that program: the
learning rate really decays (``decay="released"``: as theirs); grey images stay grey. From SimGAN: the refiner adds to the
image instead of painting it anew, and terms are means where its losses are sums over positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import average, gradient_penalty, logarithmic
from ..losses.pixels import l1
from ..networks.pool import ImagePool
from ..networks.stargan import Critic, Generator, check_sizes
from ..networks.vgg import VGG16
from ..types import Batch, Needs, Spec
from .alternating import AlternatingGAN
from .base import Losses, Optimisers, Phase
from .checks import require_positive, require_share
from .features import feature_l1, load_vgg16
from .schedules import Decay


class Brainomaly(AlternatingGAN):
    title = "Brainomaly (Rahman Siddiquee et al., WACV 2024)"
    needs = Needs.MIXED_AND_HEALTHY
    training_only = ("pool",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's, its training script included."""

        steps: int = 400_000  # authors' code: critic steps
        width: int = 64  # authors' code
        blocks: int = 6  # authors' code
        critic_width: int = 64  # authors' code
        critic_layers: int = 6  # authors' code
        adversarial: Literal["wasserstein", "log"] = "wasserstein"  # authors' code; log: SimGAN
        lambda_gp: float = 10.0  # authors' code
        lambda_id: float = 1.0  # authors' code; 0: none, as SimGAN
        lambda_self: float = 0.0  # SimGAN's distance from the input; Brainomaly has none
        lambda_features: float = 0.0  # the same between features, "feature loss + GAN"
        features: str = ""  # file of VGG-16's ImageNet weights (.safetensors or .pth), read only to train with lambda_features
        pool: int = 0  # SimGAN: earlier images kept to show the critic again; Brainomaly keeps none
        n_critic: int = 2  # authors' code
        lr: float = 1e-4  # authors' code, for G and D
        betas: tuple[float, float] = (0.5, 0.999)  # authors' code
        decay: Decay = "linear"  # what the authors' inert decay was meant to be
        decay_share: float = 0.25  # authors' code: the last 100,000 of 400,000 steps
        score: Literal["max", "mean"] = "mean"  # authors' code

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "critic_width", "critic_layers", "n_critic", "lr")
            require_share(self, "decay_share")
            if min(self.lambda_gp, self.lambda_id, self.lambda_self, self.lambda_features) < 0:
                hint = "lambda_gp, lambda_id, lambda_self and lambda_features are >= 0"
                raise ConfigError("a weight is negative", hint=hint)
            if self.pool < 0:
                raise ConfigError(f"pool must be at least 0, not {self.pool}", hint="0 shows the critic new images only")

    config: Brainomaly.Config

    def __init__(self, config: Brainomaly.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers, whole=False)
        if config.lambda_features and not config.features:
            raise ConfigError(
                "no weights for the feature loss",
                hint="name a file of VGG-16's ImageNet weights: --set method.features=FILE; or set method.lambda_features=0",
            )
        size = (spec.height, spec.width)
        self.G = Generator(spec.channels, 0, 1, width=config.width, blocks=config.blocks)
        self.D = Critic(spec.channels, 0, size, width=config.critic_width, layers=config.critic_layers)
        self.pool = ImagePool(config.pool, (spec.channels, *size))

    def translate(self, x: Tensor) -> Tensor:
        """T(x) = tanh(x + G(x)): (N, C, H, W) in [-1, 1] -> the same; the map (N, 1, H, W) goes to every channel."""
        return torch.tanh(x + self.G(x).to(x.dtype))

    def towards(self, source: Tensor, target: Literal[0, 1]) -> Tensor:
        """Falls as D's patches (N, 1, h, w) move towards 1, for real images, or 0, for translated ones. Scalar."""
        if self.config.adversarial == "log":
            return logarithmic(source, target)
        return -average(source) if target else average(source)

    def critic_loss(self, b: Tensor, healed: Tensor, alpha: Tensor | None = None) -> Losses:
        cfg, source = self.config, self.D.source(torch.cat([b, healed]))
        losses = Losses(real=self.towards(source[: len(b)], 1), fake=self.towards(source[len(b) :], 0))
        if cfg.lambda_gp:
            losses["gp"] = cfg.lambda_gp * gradient_penalty(self.D.source, b, healed, alpha)
        return losses

    def generator_loss(self, a: Tensor, b: Tensor, ta: Tensor, tb: Tensor, phi: VGG16 | None = None) -> Losses:
        """ta: T(A); tb: T(B), empty where ``lambda_id`` is 0."""
        cfg = self.config
        losses = Losses(adv=self.towards(self.D.source(ta), 1))
        if cfg.lambda_id:
            losses["id"] = cfg.lambda_id * l1(tb, b)
        if cfg.lambda_self:
            losses["self"] = cfg.lambda_self * l1(ta, a)
        if phi is not None:
            losses["features"] = cfg.lambda_features * feature_l1(phi, ta, a)
        return losses

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers, phi: VGG16 | None = None) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        moves = self.moves(k)
        with torch.set_grad_enabled(moves):
            both = self.translate(torch.cat([a, b]) if moves and self.config.lambda_id else a)
        ta, tb = both[: len(a)], both[len(a) :]
        return self.alternate(
            k, optimisers, lambda: self.critic_loss(b, self.pool(ta)), lambda: self.generator_loss(a, b, ta, tb, phi)
        )

    def phases(self) -> Sequence[Phase]:
        phases = super().phases()
        if not self.config.lambda_features:
            return phases
        # φ belongs to the run, not to the method: what is trained predicts without it.
        phi = load_vgg16(self.config.features).to(next(self.G.parameters()))
        return [replace(phase, step=partial(self.step, phi=phi)) for phase in phases]

    def heal(self, image: Tensor) -> Tensor:
        return self.translate(image)

    @classmethod
    def tiny(cls) -> tuple[Brainomaly.Config, Spec]:
        return cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3), Spec(height=32, width=32)
