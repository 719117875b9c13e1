"""Recipes of Restoration. Every number is ours; where one was measured, docs/methods/restoration.md has the figures."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.restoration import RestorationConfig


def restoration() -> Experiment:
    """Any grey image; made-up lesions that change intensities."""
    return Experiment(
        method_name="restoration",
        method=RestorationConfig(),
        data=DataConfig(
            size=96,  # the prototype's: minutes on two CPU cores
            batch_size=16,
            normalisation="foreground-median",  # brightness differs between scanners; the body's median travels
            median_scale=2.5,  # the prototype's: tissue at 0.4, room above for bright lesions
        ),
        training=TrainingConfig(
            ema=0.99,  # a window of 100 steps; runs are short
            sample_every=500,
            save_every=500,
        ),
        recipe="restoration",
    )


def prototype() -> Experiment:
    """Map and score as in the method's first experiment: one look, smoothed over 5 pixels, mean over the image."""
    base = restoration()
    return replace(base, method=replace(base.method, mirror=False, smooth=5, score="mean"), recipe="restoration-prototype")


def lgg() -> Experiment:
    """FLAIR slices of the head, where lesions are known to be brighter than what surrounds them."""
    base = restoration()
    return replace(base, method=replace(base.method, sign="bright"), recipe="restoration-lgg")


def small() -> Experiment:
    """64 px, for a first look in under two minutes on two CPU cores."""
    base = restoration()
    return replace(
        base,
        data=replace(base.data, size=64),
        method=replace(base.method, steps=1000),
        training=replace(base.training, sample_every=250, save_every=250),
        recipe="restoration-small",
    )


def warped() -> Experiment:
    """Lesions that deform instead of changing intensities, as in DeScarGAN's ellipses; 64 px."""
    base = small()
    return replace(
        base,
        # Such images have no background: their own lowest and highest value are the range.
        data=replace(base.data, normalisation="percentile", percentiles=(0.0, 100.0)),
        # smooth: what moves is a thin contour, which averaging over 3 pixels spreads (validation: best Dice 0.81 against 0.73).
        method=replace(base.method, head="warp", foreground="all", smooth=1, steps=4000),
        training=replace(base.training, sample_every=1000, save_every=1000),
        recipe="restoration-warp",
    )


def both() -> Experiment:
    """Deformation and intensity together, each taught by its own half of the made-up lesions."""
    base = restoration()
    return replace(base, method=replace(base.method, head="both"), recipe="restoration-both")
