"""Recipes of CycleGAN (Zhu et al., ICCV 2017) and of its form with shape consistency (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, Experiment
from ..methods.cyclegan import CycleGAN
from ..methods.cyclegan_shape import CycleGANShape
from .small import NARROW, for_minutes


def cyclegan() -> Experiment:
    """The paper's settings for 256 px: nine residual blocks, batch 1."""
    return Experiment(
        method_name="cyclegan",
        method=CycleGAN.Config(),
        # Paper, section 4: batch 1. Authors' program: mirrored; its crop of 256 out of 286 px is not done here.
        data=DataConfig(size=256, batch_size=1, flip=True),
        recipe="cyclegan",
    )


def cyclegan_128() -> Experiment:
    """The paper's settings for 128 px: six residual blocks, batch 1."""
    base = cyclegan()
    method = replace(base.method, blocks=6)  # paper, appendix
    return replace(base, method=method, data=replace(base.data, size=128), recipe="cyclegan-128")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base = cyclegan()
    return for_minutes(
        base,
        "cyclegan-small",
        replace(base.data, batch_size=4),  # ours: processors waste less on four images than on one
        **NARROW,
        lr=4e-4,  # ours: twice the paper's, for narrow networks and few steps
        steps=1500,  # ours: minutes on two cores
    )


def modality() -> Experiment:
    """FLAIR and contrast-enhanced T1 into each other, 128 px: the column modality names the two sets."""
    base = cyclegan_128()
    return replace(base, data=replace(base.data, **_MODALITIES), recipe="cyclegan-modality")


def modality_small() -> Experiment:
    """FLAIR and contrast-enhanced T1 into each other, 64 px and narrow networks, for processors."""
    base = small()
    return replace(base, data=replace(base.data, **_MODALITIES), recipe="cyclegan-modality-small")


def shape() -> Experiment:
    """The paper's order and weights with planes of 256 px: networks apart, then together."""
    base = cyclegan()
    return replace(base, method_name="cyclegan-shape", method=CycleGANShape.Config(), recipe="cyclegan-shape")


def shape_third_party() -> Experiment:
    """As the program by others trains: segmenters, then generators, then segmenters again; no identity loss."""
    base = shape()
    method = replace(base.method, order="third-party", dice=True, lambda_identity=0.0)  # third-party program
    return replace(base, method=method, recipe="cyclegan-shape-third-party")


def shape_modality() -> Experiment:
    """FLAIR and contrast-enhanced T1 into each other, 128 px, with the outlined tumour kept in place."""
    base = shape()
    # Blocks: CycleGAN's paper, appendix, 128 px. Dice: ours; a tumour is few of a plane's pixels.
    method = replace(base.method, blocks=6, dice=True)
    data = replace(base.data, size=128, **_MODALITIES)
    return replace(base, method=method, data=data, recipe="cyclegan-shape-modality")


def shape_small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base = small()
    method = CycleGANShape.Config(
        width=base.method.width,
        blocks=base.method.blocks,
        critic_width=base.method.critic_width,
        lr=base.method.lr,
        steps=base.method.steps,
        segmenter_width=8,  # ours: segmenters cost less than a critic
        dice=True,  # ours: with cross-entropy alone small lesions are not marked at all within minutes
    )
    return replace(base, method_name="cyclegan-shape", method=method, recipe="cyclegan-shape-small")


def shape_modality_small() -> Experiment:
    """FLAIR and contrast-enhanced T1 into each other, tumour kept in place, 64 px and narrow networks, for processors."""
    base = shape_small()
    return replace(base, data=replace(base.data, **_MODALITIES), recipe="cyclegan-shape-modality-small")


_MODALITIES: dict[str, Any] = {
    "domain_column": "modality",
    "domains": ("flair", "t1c"),  # ours: flair stands where healthy stands
    "normalisation": "foreground-median",  # ours: brightness differs from scanner to scanner
}
