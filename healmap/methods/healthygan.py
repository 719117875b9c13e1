"""HealthyGAN (Rahman Siddiquee et al., SASHIMI 2022), first submitted as A2B-GAN: any image -> healthy, from unlabelled images.

The generator gives a healthy image and a mask; the mask decides, pixel by pixel, what is taken from it and what stays. Swapping
the two roles must give the input back, which replaces the cycle and with it every need for a label.

Symbols: A mixed set (unlabelled), B healthy set, B_int the generator's image, M its mask, B' the healed image, A' the rebuilt
input, G, D.

How we differ. From the paper: epsilon of eq. (7) and the halves between the masks of A and B are left open there, ours are the
authors' code's; the model is not selected by FID. From the authors' code: the mask's size is squared image by image, as the
paper defines it, not over the batch (``mask_size="batch"``); the learning rate really decays (``decay="released"``: as
theirs). The mask need not mark the lesion: localise with the difference, and watch the logged mean of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from ..losses.adversarial import average, gradient_penalty
from ..losses.masks import mask_binary, mask_size
from ..losses.pixels import l1
from ..networks.stargan import Critic, Generator, check_sizes
from ..types import Batch, Needs, Prediction, Spec
from .alternating import AlternatingGAN
from .base import REDUCE, Losses, Optimisers, amplitude_map
from .checks import require_positive, require_share
from .schedules import Decay


class Translation(NamedTuple):
    healed: Tensor  # B' (N, C, H, W)
    rebuilt: Tensor  # A' (N, C, H, W)
    inner: Tensor  # B_int (N, C, H, W)
    mask: Tensor  # M (N, 1, H, W) in [0, 1]

    def part(self, start: int, stop: int) -> Translation:
        return Translation(*(t[start:stop] for t in self))


class HealthyGAN(AlternatingGAN):
    title = "HealthyGAN / A2B-GAN (Rahman Siddiquee et al., SASHIMI 2022)"
    needs = Needs.MIXED_AND_HEALTHY

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are HealthyGAN's appendix A; where it is silent, the authors' code's."""

        steps: int = 400_000  # appendix A: critic steps
        width: int = 64  # appendix B
        blocks: int = 6  # appendix B
        critic_width: int = 64  # appendix B
        critic_layers: int = 6  # appendix B
        lambda_gp: float = 10.0  # appendix A
        lambda_id: float = 1.0  # appendix A
        lambda_rec: float = 1.0  # appendix A
        lambda_f: float = 0.1  # appendix A
        lambda_fs: float = 1.0  # appendix A; A2B-GAN's simulated anomalies: 0.001
        lambda_fz: float = 1.0  # appendix A
        mask_size: Literal["image", "batch"] = "image"  # eq. (7): pixels of one mask; the authors' code: of the whole batch
        epsilon: float = 0.01  # authors' code
        n_critic: int = 2  # section 2.2
        lr: float = 1e-4  # appendix A, for G and D
        betas: tuple[float, float] = (0.5, 0.999)  # authors' code
        decay: Decay = "linear"  # appendix A
        decay_share: float = 0.25  # appendix A: the last 100,000 of 400,000 steps
        score: Literal["max", "mean"] = "mean"  # section 3: "more robust than the maximum"

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "critic_width", "critic_layers", "n_critic", "lr", "epsilon")
            require_share(self, "decay_share")

    config: HealthyGAN.Config

    def __init__(self, config: HealthyGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers, whole=False)
        size = (spec.height, spec.width)
        self.G = Generator(spec.channels, 0, spec.channels + 1, width=config.width, blocks=config.blocks)
        self.D = Critic(spec.channels, 0, size, width=config.critic_width, layers=config.critic_layers)

    def translate(self, a: Tensor) -> Translation:
        y = self.G(a).to(a.dtype)
        inner, m = torch.tanh(y[:, :-1]), torch.sigmoid(2 * y[:, -1:])  # (tanh(m) + 1) / 2 = σ(2m)
        return Translation(
            healed=inner * m + a * (1 - m),  # (1)
            rebuilt=a * m + inner * (1 - m),  # (2)
            inner=inner,
            mask=m,
        )

    def critic_loss(self, b: Tensor, healed: Tensor, alpha: Tensor | None = None) -> Losses:  # eqs. (3), (8)
        source = self.D.source(torch.cat([b, healed]))
        return Losses(
            real=-average(source[: len(b)]),
            fake=average(source[len(b) :]),
            gp=self.config.lambda_gp * gradient_penalty(self.D.source, b, healed, alpha),
        )

    def generator_loss(self, a: Tensor, b: Tensor, ta: Translation, tb: Translation) -> Losses:  # eq. (9)
        cfg = self.config
        source = self.D.source(torch.cat([ta.healed, tb.healed]))
        return Losses(
            adv=-average(source[: len(a)]) - average(source[len(a) :]),  # (4)
            id=cfg.lambda_id * l1(tb.inner, b),  # (5)
            rec=cfg.lambda_rec * l1(ta.rebuilt, a),  # (6)
            focus=cfg.lambda_f * (self.focus(ta.mask) + self.focus(tb.mask)) / 2,  # (7)
        )

    def focus(self, mask: Tensor) -> Tensor:  # (7)
        cfg = self.config
        return cfg.lambda_fs * mask_size(mask, cfg.mask_size) + cfg.lambda_fz * mask_binary(mask, cfg.epsilon)

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        moves = self.moves(k)
        with torch.set_grad_enabled(moves):
            both = self.translate(torch.cat([a, b]) if moves else a)
        ta, tb = both.part(0, len(a)), both.part(len(a), len(both.mask))
        losses = self.alternate(
            k, optimisers, lambda: self.critic_loss(b, ta.healed.detach()), lambda: self.generator_loss(a, b, ta, tb)
        )
        if moves:
            # Not descended: a mask that is full or empty everywhere is the usual way in which training fails.
            losses["monitor"] = Losses(mask_A=ta.mask.detach().mean(), mask_B=tb.mask.detach().mean())
        return losses

    def heal(self, image: Tensor) -> Tensor:
        return self.translate(image).healed

    def predict(self, image: Tensor) -> Prediction:
        t = self.translate(image)
        anomaly_map = amplitude_map(image, t.healed)
        return Prediction(REDUCE[self.config.score](anomaly_map.flatten(1)), anomaly_map, t.healed, {"mask": t.mask})

    @classmethod
    def tiny(cls) -> tuple[HealthyGAN.Config, Spec]:
        return cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3), Spec(height=32, width=32)
