"""Recipes of GANomaly (ACCV 2018)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.ganomaly import GANomaly
from .small import for_minutes


def ganomaly() -> Experiment:
    """The authors' settings for MNIST, 32 px, but for its range: theirs goes beyond the tanh's, ours is [-1, 1]."""
    data = DataConfig(size=32, batch_size=64, flip=False)  # authors' code
    return Experiment(method_name="ganomaly", method=GANomaly.Config(), data=data, recipe="ganomaly")


def cifar10() -> Experiment:
    """The authors' settings for CIFAR-10, 32 px in colour."""
    base = ganomaly()
    return replace(base, data=replace(base.data, channels=3), recipe="ganomaly-cifar10")


def baggage() -> Experiment:
    """The authors' settings for X-ray images of baggage, 64 px."""
    base = ganomaly()
    return replace(base, data=replace(base.data, size=64), recipe="ganomaly-baggage")


def large() -> Experiment:
    """256 px with at most 512 channels, a quarter of the authors' parameters."""
    base = ganomaly()
    method = replace(base.method, widest=512)  # ours: the authors double them down to 4 x 4
    return replace(base, method=method, data=replace(base.data, size=256), recipe="ganomaly-256")


def small() -> Experiment:
    """64 px with narrow networks, for a first look in minutes on two CPU cores."""
    base = ganomaly()
    data = replace(base.data, batch_size=32, flip=True)  # ours: few images, few minutes
    return for_minutes(base, "ganomaly-small", data, width=16, lr=4e-4, steps=3000)  # ours
