"""CycleGAN (Zhu et al., ICCV 2017): two generators between two unpaired sets of images; there and back must be the original.

One generator heals, the other makes ill, and each side has a critic of its own. The identity loss asks that the healing
generator leaves healthy images alone, which is what makes the difference to the healed image a map. With ``data.domains`` the
two sets are any others, two modalities say; the first stands where "healthy" stands here.

Symbols: x diseased image (set A, the paper's X), y healthy image (set B, the paper's Y), G = to_healthy: X -> Y,
F = to_diseased: Y -> X, D_Y = critic_healthy, D_X = critic_diseased. The authors' program calls them G_A, G_B, D_A, D_B.

How we differ. From the paper: the identity loss is on, as in the authors' program; there it serves paintings, here it keeps
healthy images; the objective is least squares, as the paper trains, and ``adversarial="log"`` its eq. (1). From the authors'
program: the rate falls with every step, not every epoch; instance statistics are always those of the image (theirs since
October 2018); no random crop. The map and the score are ours: neither paper nor program defines any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import least_squares, logarithmic
from ..losses.pixels import l1
from ..networks.cyclegan import Critic, Generator, check_sizes
from ..networks.pool import ImagePool
from ..types import Batch, Needs, Spec
from .base import HealingMethod, Losses, Optimisers, Phase, Reach
from .checks import require_positive, require_share
from .optim import adam
from .schedules import lr_decay

ADVERSARIAL: Mapping[str, Callable[[Tensor, float], Tensor]] = {"least-squares": least_squares, "log": logarithmic}


@dataclass(frozen=True, kw_only=True)
class CycleGANConfig:
    """Defaults are the paper's for 256 px; where it is silent, the authors' program's."""

    steps: int = 200_000  # paper: 200 epochs, batch 1; so many steps for sets of 1,000 images
    width: int = 64  # paper, appendix
    blocks: int = 9  # paper, appendix: 9 for 256 px and more, 6 for 128 px
    critic_width: int = 64  # paper, appendix
    critic_layers: int = 3  # paper, appendix: 70 x 70 patches
    adversarial: Literal["least-squares", "log"] = "least-squares"  # paper, section 4; log: eq. (1)
    lambda_A: float = 10.0  # paper, section 4: weight of x -> y -> x
    lambda_B: float = 10.0  # paper, section 4: weight of y -> x -> y
    lambda_identity: float = 0.5  # authors' program; a share of lambda_A and lambda_B. The paper: 0.5 for paintings, else 0
    pool: int = 50  # paper, section 4: translations kept for each critic
    lr: float = 2e-4  # paper, section 4
    betas: tuple[float, float] = (0.5, 0.999)  # authors' program
    decay: Literal["linear", "constant"] = "linear"  # paper, section 4
    decay_share: float = 0.5  # paper, section 4: the last 100 of 200 epochs
    score: Literal["max", "mean"] = "mean"  # ours: the paper has no score; the mean is the steadier

    def __post_init__(self) -> None:
        require_positive(self, "steps", "width", "blocks", "critic_width", "critic_layers", "lr")
        require_share(self, "decay_share")
        if min(self.lambda_A, self.lambda_B, self.lambda_identity) < 0:
            raise ConfigError("a weight is negative", hint="lambda_A, lambda_B and lambda_identity are >= 0")
        if self.pool < 0:
            raise ConfigError(
                f"pool must be at least 0, not {self.pool}", hint="published: 50; 0 shows fresh translations only"
            )


class Translations(NamedTuple):
    """What the generators make of x and y in one step: there, and where they should change nothing."""

    y_of_x: Tensor  # G(x) (N, C, H, W), healed
    x_of_y: Tensor  # F(y) (N, C, H, W), made ill
    y_of_y: Tensor | None  # G(y); None without identity loss
    x_of_x: Tensor | None  # F(x)


class CycleGAN(HealingMethod):
    title = "CycleGAN (Zhu et al., ICCV 2017)"
    needs = Needs.DISEASED_AND_HEALTHY
    averaged: ClassVar[tuple[str, ...]] = ("to_healthy", "to_diseased")
    training_only = ("pool_healthy", "pool_diseased")
    reaches: ClassVar[Reach] = "all"
    Config = CycleGANConfig
    config: CycleGANConfig

    def __init__(self, config: CycleGANConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers)
        self.to_healthy, self.to_diseased = (
            Generator(spec.channels, width=config.width, blocks=config.blocks) for _ in range(2)
        )
        self.critic_healthy, self.critic_diseased = (
            Critic(spec.channels, width=config.critic_width, layers=config.critic_layers) for _ in range(2)
        )
        shape = (spec.channels, spec.height, spec.width)
        self.pool_healthy, self.pool_diseased = ImagePool(config.pool, shape), ImagePool(config.pool, shape)
        self.adversarial = ADVERSARIAL[config.adversarial]

    # Equations

    def G(self, x: Tensor) -> Tensor:
        return self.to_healthy(x).to(x.dtype)

    def F(self, y: Tensor) -> Tensor:
        return self.to_diseased(y).to(y.dtype)

    def translate(self, x: Tensor, y: Tensor) -> Translations:
        """Each generator sees both images in one pass; instance norm keeps them apart."""
        if not self.config.lambda_identity:
            return Translations(self.G(x), self.F(y), None, None)
        y_of_x, y_of_y = self.G(torch.cat([x, y])).split([len(x), len(y)])
        x_of_y, x_of_x = self.F(torch.cat([y, x])).split([len(y), len(x)])
        return Translations(y_of_x, x_of_y, y_of_y, x_of_x)

    def generator_loss(self, x: Tensor, y: Tensor, t: Translations) -> Losses:  # eq. (3)
        cfg = self.config
        losses = Losses(
            adv_healthy=self.adversarial(self.critic_healthy(t.y_of_x), 1),  # (1) for G and D_Y
            adv_diseased=self.adversarial(self.critic_diseased(t.x_of_y), 1),  # (1) for F and D_X
            cyc_diseased=cfg.lambda_A * l1(self.F(t.y_of_x), x),  # (2), F(G(x)) = x
            cyc_healthy=cfg.lambda_B * l1(self.G(t.x_of_y), y),  # (2), G(F(y)) = y
        )
        if t.y_of_y is not None and t.x_of_x is not None:  # section 5.2, L_identity
            losses["id_healthy"] = cfg.lambda_identity * cfg.lambda_B * l1(t.y_of_y, y)
            losses["id_diseased"] = cfg.lambda_identity * cfg.lambda_A * l1(t.x_of_x, x)
        return losses

    def critic_loss(self, x: Tensor, y: Tensor, x_of_y: Tensor, y_of_x: Tensor) -> Losses:
        """The other side of eq. (1), halved to slow the critics down: paper, appendix."""
        return Losses(
            healthy=self._critic_loss(self.critic_healthy, y, y_of_x),
            diseased=self._critic_loss(self.critic_diseased, x, x_of_y),
        )

    def _critic_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        source = critic(torch.cat([real, fake]))
        return (self.adversarial(source[: len(real)], 1) + self.adversarial(source[len(real) :], 0)) / 2

    # Training

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        x, y = batch.image, cast(Tensor, batch.healthy)
        t = self.translate(x, y)
        return self.adversarial_step(x, y, t, self.generator_loss(x, y, t), optimisers)

    def adversarial_step(
        self, x: Tensor, y: Tensor, t: Translations, generator_loss: Losses, optimisers: Optimisers
    ) -> dict[str, Losses]:
        """Generators first, then critics, on translations of now or of a while ago."""
        losses = {"G": generator_loss}
        optimisers.descend("G", generator_loss.total)
        losses["D"] = self.critic_loss(x, y, self.pool_diseased(t.x_of_y), self.pool_healthy(t.y_of_x))
        optimisers.descend("D", losses["D"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        cfg, build = self.config, partial(adam, lr=self.config.lr, betas=self.config.betas)
        generators = [*self.to_healthy.parameters(), *self.to_diseased.parameters()]
        critics = [*self.critic_healthy.parameters(), *self.critic_diseased.parameters()]
        return [
            Phase(
                name="adversarial",
                step=self.step,
                steps=cfg.steps,
                optimisers={"G": build(generators), "D": build(critics)},
                lr_scale=lr_decay(cfg.decay, cfg.decay_share),
            )
        ]

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.G(image)

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        """Images whose label is 0 by G, the others by F. Nobody asks where an image comes from: G(y) is about y."""
        healthy = label == 0
        if healthy.all():
            return self.G(image)
        out = torch.empty_like(image)
        for chosen, generator in ((healthy, self.G), (~healthy, self.F)):
            if chosen.any():
                out[chosen] = generator(image[chosen])
        return out

    @classmethod
    def tiny(cls) -> tuple[CycleGANConfig, Spec]:
        return CycleGANConfig(steps=20, width=4, blocks=1, critic_width=4, critic_layers=2, pool=3), Spec(height=32, width=32)
