"""Recipes of ALAD (ICDM 2018)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.alad import ALAD
from .small import for_minutes


def alad() -> Experiment:
    """The authors' settings, 32 px, in grey."""
    return Experiment(
        method_name="alad",
        method=ALAD.Config(),
        data=DataConfig(size=32, batch_size=32, flip=False),  # authors' code
        training=TrainingConfig(ema=0.999),  # authors' code: the averaged weights score
        recipe="alad",
    )


def cifar10() -> Experiment:
    """The authors' settings for CIFAR-10 and SVHN, 32 px in colour."""
    base = alad()
    return replace(base, data=replace(base.data, channels=3), recipe="alad-cifar10")


def at_128() -> Experiment:
    """128 px, two halvings more than the authors have, as HealthyGAN's chest X-rays would need."""
    base = alad()
    return replace(base, data=replace(base.data, size=128), recipe="alad-128")


def small() -> Experiment:
    """64 px with narrow networks, for a first look in minutes on two CPU cores."""
    data = replace(alad().data, flip=True)  # ours: few images
    return for_minutes(alad(), "alad-small", data, width=16, lr=4e-4, steps=2000)  # ours
