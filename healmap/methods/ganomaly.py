"""GANomaly (Akcay, Atapour-Abarghouei and Breckon, ACCV 2018): an image is diseased if its reconstruction has another code.

An encoder, a decoder and a second encoder learn from healthy images; a discriminator whose features are matched keeps the
reconstruction sharp. Of a diseased image the first encoder's code holds what the decoder never learnt to draw, so the second
encoder, who sees the drawing, finds another.

Symbols: x image, z = E1(x), x̂ = De(z), ẑ = E2(x̂), D discriminator, f its features before the last layer.

How we differ. Inference takes batch norm's stored statistics: the authors' test stays in training mode, so a score depends on
the test images beside it, and is then stretched by the least and greatest of the test set. ``statistics="image"`` is their test
shown one image at a time, as a co-author says it was meant; without its update of the stored statistics. Scores stay as they
are. The losses are the authors' code's. The discriminator's loss is looked at every 50 steps, not at each, for a restart.
Images fill [-1, 1]: the authors shift and scale MNIST so that its white, 2.8, is beyond what the tanh of De can draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, distributed, nn

from ..errors import ConfigError
from ..losses.adversarial import logarithmic
from ..losses.pixels import l1, mse
from ..losses.precision import at_least_float32
from ..networks.batchnorm import Statistics
from ..networks.ganomaly import SPREAD, Encoder, Generator
from ..networks.halvings import halvings
from ..networks.start import normal_start
from ..types import Batch, Needs, Prediction, Spec
from .base import HealingMethod, Losses, Optimisers, Phase, amplitude_map
from .checks import require_betas, require_positive
from .optim import adam
from .processes import several

LOOK_EVERY = 50  # ours: steps between looks at D's loss; the authors look at each, and an accelerator waits for each


class GANomaly(HealingMethod):
    title = "GANomaly (Akcay et al., ACCV 2018)"
    needs = Needs.HEALTHY
    localises = False
    averaged: ClassVar[tuple[str, ...]] = ("G",)
    training_only: ClassVar[tuple[str, ...]] = ("watch",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's."""

        steps: int = 10_500  # authors' code: 15 epochs, batch 64; so many steps for 45,000 images (nine classes of CIFAR-10)
        latent: int = 100  # authors' code
        width: int = 64  # authors' code: channels after the first halving, doubled by each further one
        widest: int = 0  # authors' code: no limit: at 256 px 144 million parameters in G, 45 in D; 512 is a sane one (ours)
        lambda_adv: float = 1.0  # authors' code
        lambda_con: float = 50.0  # authors' code
        lambda_enc: float = 1.0  # authors' code
        lr: float = 2e-4  # authors' code
        betas: tuple[float, float] = (0.5, 0.999)  # authors' code
        restart_below: float = 1e-5  # authors' code: D is drawn anew when its loss falls below; 0: never
        statistics: Statistics = "stored"  # ours; image: the authors' test at batch size 1
        score: Literal["squared", "absolute"] = "squared"  # authors' code; absolute: paper, section 3, the L1 norm

        def __post_init__(self) -> None:
            require_positive(self, "steps", "latent", "width", "lr")
            require_betas(self)
            for name in ("widest", "lambda_adv", "lambda_con", "lambda_enc", "restart_below"):
                if getattr(self, name) < 0:
                    raise ConfigError(f"{name} must not be negative, not {getattr(self, name)}", hint="0 turns it off")

    config: GANomaly.Config

    def __init__(self, config: GANomaly.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        k, width, widest = halvings(spec.height, spec.width), config.width, config.widest
        self.G = Generator(spec.channels, config.latent, halvings=k, width=width, widest=widest, statistics=config.statistics)
        self.D = Encoder(spec.channels, 1, halvings=k, width=width, widest=widest)
        self.watch = Watch()

    # Equations, in the authors' code's reductions: all are means

    def generator_loss(self, x: Tensor, x_hat: Tensor, z: Tensor, z_hat: Tensor, f_x: Tensor) -> Losses:
        """f_x: f(x), without gradient."""
        cfg = self.config
        _, f_x_hat = self.D(x_hat)
        return Losses(
            adv=cfg.lambda_adv * mse(at_least_float32(f_x), at_least_float32(f_x_hat)),
            con=cfg.lambda_con * l1(x, at_least_float32(x_hat)),
            enc=cfg.lambda_enc * mse(at_least_float32(z), at_least_float32(z_hat)),
        )

    def critic_loss(self, real: Tensor, fake: Tensor) -> Losses:
        """real, fake: (N, 1) logits."""
        return Losses(real=logarithmic(real, 1) / 2, fake=logarithmic(fake, 0) / 2)

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        x = next(batches).image
        z, x_hat, z_hat = self.G(x)
        real, f_x = self.D(x)  # serves both: D stands still while G moves
        losses = {"G": self.generator_loss(x, x_hat, z, z_hat, f_x.detach())}
        optimisers.descend("G", losses["G"].total)
        losses["D"] = self.critic_loss(real, self.D(x_hat.detach())[0])
        optimisers.descend("D", losses["D"].total)
        if self.config.restart_below:
            self.watch.see(losses["D"].total.detach() < self.config.restart_below)
            if (k + 1) % LOOK_EVERY == 0:
                self.watch.restart_if_low(self.D)
            losses["monitor"] = Losses(restarts=self.watch.restarts.float())
        return losses

    def phases(self) -> Sequence[Phase]:
        build = partial(adam, lr=self.config.lr, betas=self.config.betas)
        optimisers = {"G": build(self.G.parameters()), "D": build(self.D.parameters())}
        return [Phase(name="adversarial", step=self.step, steps=self.config.steps, optimisers=optimisers)]

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.G.De(self.G.E1(image)[0]).to(image.dtype)

    def predict(self, image: Tensor) -> Prediction:
        """``maps["residual"]``: |x - x̂| / 2, (N, 1, H, W), ours. The method itself has no map."""
        z, x_hat, z_hat = self.G(image)
        healed = x_hat.to(image.dtype)
        apart = at_least_float32(z) - at_least_float32(z_hat)  # (N, latent)
        score = apart.square().mean(1) if self.config.score == "squared" else apart.abs().sum(1)
        return Prediction(score, None, healed, {"residual": amplitude_map(image, healed)})

    @classmethod
    def tiny(cls) -> tuple[GANomaly.Config, Spec]:
        return cls.Config(steps=20, latent=8, width=4), Spec(height=32, width=32)


class Watch(nn.Module):
    """Whether the discriminator's loss was low since the last look, and how often it was drawn anew for it."""

    low: Tensor  # () int64, 0 or 1
    restarts: Tensor  # () int64

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros((), dtype=torch.int64))
        self.register_buffer("restarts", torch.zeros((), dtype=torch.int64))

    def see(self, low: Tensor) -> None:
        """low: () bool. Nothing waits for it here."""
        self.low.logical_or_(low)

    def restart_if_low(self, discriminator: nn.Module) -> None:
        """Draws weights and norms anew, the same in every process; Adam keeps its moments, as in the authors' code."""
        if several():
            distributed.all_reduce(self.low, op=distributed.ReduceOp.MAX)
        if self.low:
            self.restarts += 1
            seeded = torch.Generator(self.low.device).manual_seed(int(self.restarts))
            normal_start(discriminator, SPREAD, norms=(nn.BatchNorm2d,), generator=seeded)
        self.low.zero_()
