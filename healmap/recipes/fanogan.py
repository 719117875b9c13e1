"""Recipes of f-AnoGAN (Medical Image Analysis 2019)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, Experiment
from ..methods.fanogan import FAnoGAN
from .small import for_minutes

# Ours, for minutes: a quarter of the width, and rates that get somewhere in hundreds of steps.
SMALL: dict[str, Any] = {
    "width": 16,
    "latent": 64,
    "n_critic": 3,
    "lr": 3e-4,
    "encoder_lr": 5e-4,
    "steps": 2000,
    "encoder_share": 0.4,
}


def f_anogan() -> Experiment:
    """The paper's networks and schedule on whole images, at the 64 px of its patches."""
    data = DataConfig(size=64, batch_size=64)  # authors' code, flips included
    return Experiment(method_name="f-anogan", method=FAnoGAN.Config(), data=data, recipe="f-anogan")


def patches() -> Experiment:
    """The paper's 64-px patches, drawn from images of 256 px and stitched."""
    base = f_anogan()
    # Ours: 16 images give the authors' batch of 64 patches.
    data = replace(base.data, size=256, batch_size=16)
    return replace(base, method=replace(base.method, patch=64, patches=4), data=data, recipe="f-anogan-patches")


def small() -> Experiment:
    """Whole images of 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    base = f_anogan()
    return for_minutes(base, "f-anogan-small", replace(base.data, batch_size=16), **SMALL)


def patches_small() -> Experiment:
    """Patches of 32 px in images of 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    base = patches()
    patch = {"patch": 32, "patches": 2}  # ours: a batch of 32
    return for_minutes(base, "f-anogan-patches-small", **{**SMALL, **patch})
