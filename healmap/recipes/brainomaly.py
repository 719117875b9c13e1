"""Recipes of Brainomaly (WACV 2024). The paper's own settings were not at hand: they are the authors' program's."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.brainomaly import Brainomaly
from .small import NARROW, for_minutes


def brainomaly() -> Experiment:
    """The authors' settings for slices of registered brain MRI, 192 px."""
    return Experiment(
        method_name="brainomaly",
        method=Brainomaly.Config(),
        # Authors' program: 192 px, batch 16, flips, centre square (after five pixels of black on every side).
        data=DataConfig(size=192, batch_size=16, flip=True, fit="crop"),
        # Authors' program: a checkpoint every 10,000 steps; the one with the best AUCp is taken (abstract).
        training=TrainingConfig(sample_every=10_000, save_every=10_000, select="aucp"),
        recipe="brainomaly",
    )


def alzheimer() -> Experiment:
    """Alzheimer's disease, ADNI, 192 px; DS1 and DS2 differ in which images are mixed and which test."""
    return replace(brainomaly(), recipe="brainomaly-alzheimer")


def headache() -> Experiment:
    """Headache, 192 px; the authors' data are private."""
    return replace(brainomaly(), recipe="brainomaly-headache")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base = brainomaly()
    return for_minutes(
        base,
        "brainomaly-small",
        replace(base.data, fit="pad"),  # ours: nothing is cut off
        **NARROW,
        critic_layers=5,  # 64 px end at 2 x 2 patches
        lr=4e-4,  # ours: four times the authors', for narrow networks and few steps
        steps=1500,  # ours: what two cores do in minutes
    )
