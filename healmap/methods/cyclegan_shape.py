"""CycleGAN with shape consistency (Zhang, Yang, Zheng, CVPR 2018): a translation must not move what has been outlined.

The cycle loss cannot see a distortion T that the way back undoes: F∘T⁻¹ after T∘G still returns the original. So a segmenter
for each domain is trained along, and must find in the translated image what was outlined in its source. In return the
translated images, whose outlines are known, are more images for the segmenters to learn from.

Symbols: x, y images of set A and set B as in CycleGAN, m_x, m_y their label maps, S_X = segmenter_diseased, S_Y =
segmenter_healthy, G: X -> Y, F: Y -> X. The printed L_shape names generators by where they lead: G_A is F here, G_B is G.

This is for two domains of one anatomy, modalities say (``data.domains``). Between healthy and diseased it would ask the
healed image to keep the outlined lesion.

How we differ. From the paper: planes and U-Nets instead of volumes and volumetric networks; CycleGAN's identity loss is on; the
share of the steps spent apart is ours. From the third-party program (``order="third-party"``): its segmenters' Dice loss needs
``dice``, its missing identity loss ``lambda_identity=0``; the recipe cyclegan-shape-third-party sets both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigError
from ..losses.shape import pixel_cross_entropy, soft_dice
from ..networks.unet import UNet
from ..types import Batch, Needs, Prediction, Spec
from .base import Losses, Optimisers, Phase
from .checks import require_positive
from .cyclegan import CycleGAN, CycleGANConfig, Translations
from .optim import adam
from .schedules import lr_decay

CLASSES = 2  # background and marked, as the loader gives masks


class Weights(NamedTuple):
    """The weights that an order of training brings along."""

    gamma: float  # of L_shape
    synthetic: float  # of translated images in the segmenters' loss


WEIGHTS: Mapping[str, Weights] = {
    "joint": Weights(gamma=1.0, synthetic=1.0),  # gamma: CVPR paper; synthetic: ours, a translated image counts as a real one
    "third-party": Weights(gamma=0.5, synthetic=0.5),  # third-party program
}


@dataclass(frozen=True, kw_only=True)
class CycleGANShapeConfig(CycleGANConfig):
    """CycleGAN's settings and those of the segmenters."""

    order: Literal["joint", "third-party"] = "joint"  # the paper's, or that of the program by others; see ``phases``
    gamma: float | None = None  # weight of L_shape; None: the order's own, 1 or 0.5
    synthetic: bool = True  # segmenters learn from translated images as well; off: from real ones alone
    lambda_synthetic: float | None = None  # weight of translated images; None: the order's own, 1 or 0.5
    pretraining: float = 0.25  # ours: share of the steps in the first phase and, third-party, once more in the last
    dice: bool = False  # third-party program: the segmenters' own loss is Dice and cross-entropy; the paper: cross-entropy
    segmenter_width: int = 16  # ours: channels at full resolution
    segmenter_levels: int = 4  # ours: halvings
    segmenter_lr: float = 1e-3  # ours

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "segmenter_width", "segmenter_levels", "segmenter_lr")
        for name in ("gamma", "lambda_synthetic"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0, not {value}", hint="leave it out for the order's own weight")
        most = 1.0 if self.order == "joint" else 0.5
        if not 0 < self.pretraining < most:
            text = f"pretraining must lie between 0 and {most:g} in order {self.order}, not {self.pretraining}"
            raise ConfigError(text, hint="it is a share of the steps, for example 0.25")
        if min(self.phase_steps()) < 1:
            raise ConfigError(f"{self.steps} steps cannot be divided among {len(self.phase_steps())} phases", hint="use 10")

    def phase_steps(self) -> tuple[int, ...]:
        """Steps of each phase; together ``steps``."""
        first = round(self.pretraining * self.steps)
        if self.order == "joint":
            return first, self.steps - first
        middle = self.steps - 2 * first
        return first, middle - middle // 2, middle // 2, first  # L_shape from half way: epoch 100 of 200


class CycleGANShape(CycleGAN):
    title = "CycleGAN with shape consistency (Zhang et al., CVPR 2018)"
    needs = Needs.SEGMENTED
    averaged = ("to_healthy", "to_diseased", "segmenter_healthy", "segmenter_diseased")
    Config = CycleGANShapeConfig
    config: CycleGANShapeConfig

    def __init__(self, config: CycleGANShapeConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        check_segmenter(spec.height, spec.width, config.segmenter_levels)
        self.segmenter_healthy, self.segmenter_diseased = (
            UNet(spec.channels, CLASSES, width=config.segmenter_width, levels=config.segmenter_levels) for _ in range(2)
        )
        own = WEIGHTS[config.order]
        self.gamma = own.gamma if config.gamma is None else config.gamma
        self.lambda_synthetic = own.synthetic if config.lambda_synthetic is None else config.lambda_synthetic

    # Equations

    def shape_loss(self, t: Translations, m_x: Tensor, m_y: Tensor) -> Losses:
        """γ L_shape: the target's segmenter on the translated image, against the outlines of its source."""
        return Losses(
            shape_healthy=self.gamma * pixel_cross_entropy(self.segmenter_healthy(t.y_of_x), m_x),  # -log S_Y(G(x))[m_x]
            shape_diseased=self.gamma * pixel_cross_entropy(self.segmenter_diseased(t.x_of_y), m_y),  # -log S_X(F(y))[m_y]
        )

    def segmenter_loss(self, x: Tensor, y: Tensor, m_x: Tensor, m_y: Tensor, t: Translations | None) -> Losses:
        """Each segmenter on real images of its domain and, if given, on translated ones with the outlines of their source."""
        s_x, s_y = self.segmenter_diseased, self.segmenter_healthy
        if t is None:
            return Losses(real_healthy=self.overlap(s_y(y), m_y), real_diseased=self.overlap(s_x(x), m_x))
        on_y, on_x = s_y(torch.cat([y, t.y_of_x.detach()])), s_x(torch.cat([x, t.x_of_y.detach()]))
        return Losses(
            real_healthy=self.overlap(on_y[: len(y)], m_y),
            real_diseased=self.overlap(on_x[: len(x)], m_x),
            synthetic_healthy=self.lambda_synthetic * self.overlap(on_y[len(y) :], m_x),
            synthetic_diseased=self.lambda_synthetic * self.overlap(on_x[len(x) :], m_y),
        )

    def overlap(self, logits: Tensor, m: Tensor) -> Tensor:
        """The segmenters' own loss: cross-entropy, with the Dice loss if asked."""
        loss = pixel_cross_entropy(logits, m)
        return loss + soft_dice(logits, m) if self.config.dice else loss

    # Training

    def step(
        self,
        batches: Iterator[Batch],
        k: int,
        optimisers: Optimisers,
        *,
        translate: bool = True,
        shape: bool = True,
        segment: bool = True,
        synthetic: bool = True,
    ) -> Mapping[str, Losses]:
        """What a phase asks for: ``translate`` moves generators and critics, ``shape`` with L_shape; ``segment`` moves the
        segmenters, ``synthetic`` on translated images as well."""
        batch = next(batches)
        x, y = batch.image, cast(Tensor, batch.healthy)
        m_x, m_y = cast(Tensor, batch.mask), cast(Tensor, batch.healthy_mask)
        losses: dict[str, Losses] = {}
        t = None
        if translate:
            t = self.translate(x, y)
            generator_loss = self.generator_loss(x, y, t)
            if shape:
                generator_loss.update(self.shape_loss(t, m_x, m_y))
            losses |= self.adversarial_step(x, y, t, generator_loss, optimisers)
        elif synthetic:
            with torch.no_grad():
                t = Translations(self.G(x), self.F(y), None, None)
        if segment:
            losses["S"] = self.segmenter_loss(x, y, m_x, m_y, t if synthetic else None)
            optimisers.descend("S", losses["S"].total)
        return losses

    def phases(self) -> Sequence[Phase]:
        """joint: generators, critics and segmenters apart, then together (paper). third-party: segmenters on real images;
        generators and critics, from half way with L_shape of the frozen segmenters; segmenters on real and translated images.

        The phases share their optimisers, and generators keep one schedule across theirs.
        """
        cfg, steps = self.config, self.config.phase_steps()
        (cyclegan,) = super().phases()
        gans = dict(cyclegan.optimisers)
        parameters = [*self.segmenter_healthy.parameters(), *self.segmenter_diseased.parameters()]
        segmenters: dict[str, Optimizer] = {"S": adam(parameters, lr=cfg.segmenter_lr, betas=cfg.betas)}
        decay = lr_decay(cfg.decay, cfg.decay_share)
        step = partial(self.step, synthetic=cfg.synthetic)
        if cfg.order == "joint":
            apart = partial(self.step, shape=False, synthetic=False)
            return [
                Phase(name="apart", step=apart, steps=steps[0], optimisers=gans | segmenters, lr_scale=part(decay, steps, 0)),
                Phase(name="joint", step=step, steps=steps[1], optimisers=gans | segmenters, lr_scale=part(decay, steps, 1)),
            ]
        on_real = partial(self.step, translate=False, synthetic=False)
        alone, frozen = partial(self.step, shape=False, segment=False), partial(self.step, segment=False)
        on_both, middle = partial(step, translate=False), steps[1:3]
        return [
            Phase(name="segmenters", step=on_real, steps=steps[0], optimisers=segmenters),
            Phase(name="translation", step=alone, steps=steps[1], optimisers=gans, lr_scale=part(decay, middle, 0)),
            Phase(name="shape", step=frozen, steps=steps[2], optimisers=gans, lr_scale=part(decay, middle, 1)),
            Phase(name="synthetic", step=on_both, steps=steps[3], optimisers=segmenters, lr_scale=decay),
        ]

    # Inference

    def predict(self, image: Tensor) -> Prediction:
        """CycleGAN's answer, and what each domain's segmenter marks: nobody says which domain an image comes from.

        ``segmentation_0`` is that of the first domain (healthy, set B), ``segmentation_1`` that of the second: (N, 1, H, W) in
        [0, 1].
        """
        found = super().predict(image)
        segmenters = (self.segmenter_healthy, self.segmenter_diseased)
        marked = {f"segmentation_{i}": s(image).softmax(1)[:, 1:].to(image.dtype) for i, s in enumerate(segmenters)}
        return Prediction(found.score, found.anomaly_map, found.healed, marked)

    @classmethod
    def tiny(cls) -> tuple[CycleGANShapeConfig, Spec]:
        config = CycleGANShapeConfig(
            steps=20,
            width=4,
            blocks=1,
            critic_width=4,
            critic_layers=2,
            pool=3,
            segmenter_width=4,
            segmenter_levels=2,
        )
        return config, Spec(height=32, width=32)


def part(schedule: Callable[[int, int], float], steps: Sequence[int], i: int) -> Callable[[int, int], float]:
    """What phase ``i`` sees of a schedule over all of ``steps``, however many steps its time then allows."""
    before, own, whole = sum(steps[:i]), steps[i], sum(steps)
    return lambda k, total: schedule(before + k * own // total, whole)


def check_segmenter(height: int, width: int, levels: int) -> None:
    """Raises ConfigError unless a U-Net of so many levels can take the size and keeps two pixels a side at the bottom."""
    multiple = 1 << levels
    for name, side in (("height", height), ("width", width)):
        if side % multiple or side < 2 * multiple:
            raise ConfigError(
                f"image {name} {side} does not fit the segmenters, which halve it {levels} times",
                hint=f"use {max(2, round(side / multiple)) * multiple} pixels, or fewer method.segmenter_levels",
            )
