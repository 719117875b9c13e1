"""Recipes of Restoration. Every number is ours; where one was measured, docs/methods/restoration.md has the figures."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.restoration import RestorationConfig


def restoration() -> Experiment:
    """The default: any grey image on a dark or a full background, lesions that change intensities."""
    return Experiment(
        method_name="restoration",
        method=RestorationConfig(),
        data=DataConfig(size=96, batch_size=16),           # the prototype's: minutes on two CPU cores
        training=TrainingConfig(
            ema=0.99,                                      # a window of 100 steps; runs are short
            sample_every=500,
            save_every=500,
        ),
        recipe="restoration",
    )


def lgg() -> Experiment:
    """FLAIR slices of the head: brightness differs from scanner to scanner, so it is measured against the head's median."""
    base = restoration()
    return replace(base, data=replace(base.data, normalisation="foreground-median", median_scale=2.5), recipe="restoration-lgg")


def small() -> Experiment:
    """64 px, for a first look in under two minutes on two CPU cores."""
    base = restoration()
    return replace(base, data=replace(base.data, size=64), method=replace(base.method, steps=1000), recipe="restoration-small")


def warped() -> Experiment:
    """Lesions that deform instead of changing intensities (DeScarGAN's ellipses): 64 px, no background to leave out."""
    base = small()
    method = replace(base.method, head="warp", foreground="all", steps=4000)
    return replace(base, method=method, recipe="restoration-warp")


def both() -> Experiment:
    """Deformation and intensity together, each taught by its own half of the made-up lesions."""
    base = restoration()
    return replace(base, method=replace(base.method, head="both"), recipe="restoration-both")
