"""Recipes of PatchCore. Sources: the paper; its authors' program ("official"); anomalib 2.7.0; ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.backbone import BackboneConfig
from ..methods.patchcore import PatchCoreConfig


def patchcore() -> Experiment:
    """The paper's PatchCore on Wide ResNet-50-2 at 224 px with a bank of 10,000; name its weights file."""
    return Experiment(
        method_name="patchcore",
        method=PatchCoreConfig(),
        data=DataConfig(
            size=224,  # paper: resized to 256, the central 224 cropped. Ours are resized to 224: the border is kept
            batch_size=16,
            flip=False,  # the paper fits the images as they are
        ),
        # ours: single precision, as at prediction; patches are told apart by small differences
        training=TrainingConfig(precision="32"),
        recipe="patchcore",
    )


def with_anomalib() -> Experiment:
    """As anomalib computes it: mean-pooled features, 256 px, sparse projection, map enlarged by nearest neighbour."""
    base = patchcore()
    method = replace(base.method, features="anomalib", projection="sparse", enlarge="nearest")
    return replace(base, method=method, data=replace(base.data, size=256), recipe="patchcore-anomalib")


def random() -> Experiment:
    """A random sample as bank: more robust where the healthy set may hold a diseased image."""
    base = patchcore()
    return replace(base, method=replace(base.method, coreset="random"), recipe="patchcore-random")


def filters() -> Experiment:
    """A fixed bank of oriented filters as backbone: no weights file needed."""
    return _own(BackboneConfig(name="filters"), "patchcore-filters")


def self_trained() -> Experiment:
    """A backbone trained on the healthy images first: no weights file needed."""
    return _own(BackboneConfig(name="self"), "patchcore-self")


def small() -> Experiment:
    """64 px and filters, for a first look in a minute on two processor cores."""
    base = filters()
    method = replace(base.method, bank_size=5000, sigma=1.0)  # ours: 4 pixels at 256
    return replace(base, method=method, data=replace(base.data, size=64), recipe="patchcore-small")


def _own(backbone: BackboneConfig, recipe: str, **method: Any) -> Experiment:
    """Backbones of few channels: their means side by side, for there is nothing to average into 1024 bins."""
    base = patchcore()
    changed = replace(base.method, backbone=backbone, features="anomalib", **method)
    return replace(base, method=changed, recipe=recipe)
