"""VA-GAN (Baumgartner et al., CVPR 2018): what must be added to a diseased image so that it looks healthy.

A U-Net predicts the additive map of images that are known to be diseased, at inference as in training; a critic compares the
sum with real healthy images. The critic moves many times for each step of the generator, and very many times early on.

Symbols: x diseased image, r healthy image, M the U-Net, y = tanh(x + M(x)) the healed image, D the critic. As in the authors'
code D wants real images low and made ones high, against the usual sign.

How we differ. From the authors' code: the penalty is on the norm of the whole gradient (Gulrajani et al. 2017), not on that of
each image column (``penalty="released"``); images have two dimensions. The map and the score are ours, the score outside the
method's contract, which ends with images whose class is known. Running averages serve at inference, as theirs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import average, gradient_penalty
from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.vagan import Critic, Generator, check_sizes
from ..types import Batch, Needs, Prediction, Spec
from .base import REDUCE, HealingMethod, Losses, Optimisers, Phase, amplitude_map
from .checks import require_positive
from .optim import adam


class VAGAN(HealingMethod):
    title = "VA-GAN (Baumgartner et al., CVPR 2018)"
    needs = Needs.DISEASED_AND_HEALTHY
    class_at_inference = True
    averaged = ("G",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the authors' code's."""

        steps: int = 100_000  # authors' code: generator steps, at most
        width: int = 16  # authors' code
        critic_width: int = 16  # authors' code
        tanh: bool = True  # authors' code: y = tanh(x + M(x)); off: y = x + M(x)
        lambda_gp: float = 10.0  # authors' code
        penalty: Literal["whole", "released"] = "whole"  # Gulrajani et al.; released: the norm of each image column
        lambda_map: float = 100.0  # authors' code
        n_critic: int = 5  # authors' code: critic steps before a generator step
        n_critic_much: int = 100  # authors' code: in the first steps and now and then
        much_first: int = 25  # authors' code
        much_every: int = 100  # authors' code
        lr: float = 1e-3  # paper, by the remark in the authors' configuration, which has 1e-4 for the synthetic images
        betas: tuple[float, float] = (0.0, 0.9)  # authors' code
        score: Literal["max", "mean"] = "mean"  # ours: the authors have none

        def __post_init__(self) -> None:
            positive = ("steps", "width", "critic_width", "n_critic", "n_critic_much", "much_every", "lr")
            require_positive(self, *positive)
            if min(self.lambda_gp, self.lambda_map, self.much_first) < 0:
                raise ConfigError("a setting is negative", hint="lambda_gp, lambda_map and much_first are >= 0")

    config: VAGAN.Config

    def __init__(self, config: VAGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width)
        self.G = Generator(spec.channels, width=config.width)
        self.D = Critic(spec.channels, width=config.critic_width)
        self.penalty = {"whole": gradient_penalty, "released": column_penalty}[config.penalty]

    def translate(self, x: Tensor) -> Tensor:
        """y: (N, C, H, W), in [-1, 1] with ``tanh`` and unbounded without."""
        y = x + self.G(x).to(x.dtype)
        return torch.tanh(y) if self.config.tanh else y

    def critic_loss(self, r: Tensor, y: Tensor, alpha: Tensor | None = None) -> Losses:
        source = self.D(torch.cat([r, y]))
        return Losses(
            real=average(source[: len(r)]),
            fake=-average(source[len(r) :]),
            gp=self.config.lambda_gp * self.penalty(self.D, r, y, alpha),
        )

    def generator_loss(self, x: Tensor, y: Tensor) -> Losses:
        return Losses(
            adv=average(self.D(y)),
            map=self.config.lambda_map * l1(y, x),  # |M| itself without tanh
        )

    def critic_steps(self, k: int) -> int:
        """How often D moves before step k of G."""
        cfg = self.config
        return cfg.n_critic_much if k < cfg.much_first or (k + 1) % cfg.much_every == 0 else cfg.n_critic

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        losses: dict[str, Losses] = {}
        for _ in range(self.critic_steps(k)):
            batch = next(batches)
            with torch.no_grad():
                y = self.translate(batch.image)
            losses["D"] = self.critic_loss(cast(Tensor, batch.healthy), y)
            optimisers.descend("D", losses["D"].total)
        x = next(batches).image
        losses["G"] = self.generator_loss(x, self.translate(x))
        optimisers.descend("G", losses["G"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        build = partial(adam, lr=self.config.lr, betas=self.config.betas)
        optimisers = {"G": build(self.G.parameters()), "D": build(self.D.parameters())}
        return [Phase(name="adversarial", step=self.step, steps=self.config.steps, optimisers=optimisers)]

    def heal(self, image: Tensor) -> Tensor:
        return self.translate(image).clamp(-1, 1)

    def predict(self, image: Tensor) -> Prediction:
        """For images known to be diseased. ``maps["additive"]``: y - x, (N, C, H, W), positive where brightness was missing."""
        y = self.translate(image)
        healed = y.clamp(-1, 1)
        anomaly_map = amplitude_map(image, healed)
        score = REDUCE[self.config.score](anomaly_map.flatten(1))
        return Prediction(score, anomaly_map, healed, {"additive": y - image})

    @classmethod
    def tiny(cls) -> tuple[VAGAN.Config, Spec]:
        few = cls.Config(n_critic=2, n_critic_much=3, much_first=1, much_every=3, steps=20, width=2, critic_width=2)
        return few, Spec(height=32, width=32)


def column_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The penalty of the authors' code: mean of (‖column of ∇_x̂ D(x̂)‖₂ - 1)² over the columns of image and channel.

    As :func:`gradient_penalty`, but each norm runs over the rows alone. A norm of zero has gradient zero, theirs NaN.
    """
    if alpha is None:
        alpha = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), alpha).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = torch.linalg.vector_norm(at_least_float32(gradient), dim=2)  # (N, C, W)
    return (norm - 1).square().mean()
