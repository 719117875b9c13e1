"""Recipes of pix2pix (CVPR 2017)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.pix2pix import Pix2Pix


def pix2pix() -> Experiment:
    """The paper's settings, 256 px."""
    return Experiment(
        method_name="pix2pix",
        method=Pix2Pix.Config(),
        data=DataConfig(size=256, batch_size=1, flip=True),  # paper; its crop of 256 from 286 pixels is left out
        recipe="pix2pix",
    )


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base = pix2pix()
    method = replace(
        base.method,
        width=16,
        critic_width=16,
        critic_layers=2,  # ours: 34 pixels, half the image
        lr=1e-3,  # ours: five times the paper's, for narrow networks and few steps
        steps=1500,  # ours: minutes on two cores
    )
    data = replace(base.data, size=64, batch_size=8)  # ours: steadier steps; statistics stay those of each image
    training = TrainingConfig(ema=0.99, sample_every=500, save_every=500)  # ours: hides the swing of single steps
    return replace(base, method=method, data=data, training=training, recipe="pix2pix-small")
