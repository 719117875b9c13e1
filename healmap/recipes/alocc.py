"""Recipes of ALOCC (CVPR 2018)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.alocc import ALOCC
from .small import for_minutes


def alocc() -> Experiment:
    """The authors' settings for MNIST, 28 px; their images are in [0, 1], ours in [-1, 1], with noise in proportion."""
    data = DataConfig(size=28, batch_size=128, flip=False)  # authors' code
    return Experiment(method_name="alocc", method=ALOCC.Config(), data=data, recipe="alocc")


def patches() -> Experiment:
    """The authors' settings for patches of surveillance video, 45 px; the images must be such patches."""
    base = alocc()
    method = replace(base.method, noise=0.155)  # authors' code: of the range [-1, 1], which these images have there, too
    return replace(base, method=method, data=replace(base.data, size=45), recipe="alocc-patches")


def released() -> Experiment:
    """The authors' program's reconstruction term and test: D on the raw image, statistics of the moment.

    Noise and order of the images are drawn anew, where the program draws noise once and never shuffles.
    """
    base = alocc()
    method = replace(base.method, reconstruction="released", judged="raw", statistics="image")
    return replace(base, method=method, recipe="alocc-released")


def small() -> Experiment:
    """64 px with the authors' networks, which are small, for a first look in minutes on two CPU cores."""
    data = replace(alocc().data, batch_size=32, flip=True)  # ours: few images
    found = for_minutes(alocc(), "alocc-small", data, lr=5e-4, steps=1000)  # ours: smaller batches, smaller steps
    return found.with_(training=replace(found.training, ema=0.0))  # ALOCC averages no weights
