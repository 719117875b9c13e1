"""Recipes of VA-GAN (CVPR 2018). Its brain MRI are volumes for a network in three dimensions, which has no recipe here."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.vagan import VAGAN


def va_gan() -> Experiment:
    """The paper's settings for images of two dimensions, 112 px."""
    return Experiment(
        method_name="va-gan",
        method=VAGAN.Config(),
        data=DataConfig(size=112, batch_size=32, flip=False),  # authors' configuration of the synthetic images
        recipe="va-gan",
    )


def synthetic() -> Experiment:
    """The synthetic images, 112 px, with the rate of the authors' released configuration."""
    base = va_gan()
    return replace(base, method=replace(base.method, lr=1e-4), recipe="va-gan-synthetic")  # it remarks that the paper had 1e-3


def small() -> Experiment:
    """64 px and shorter critic phases, for a first look in minutes on two CPU cores."""
    base = va_gan()
    method = replace(
        base.method,
        n_critic_much=20,  # ours: twenty-five steps with a hundred would take most of the minutes
        much_first=5,  # ours
        steps=300,  # ours: what two cores do in minutes
    )
    data = replace(base.data, size=64, batch_size=8)  # ours: a step takes at least six batches
    training = TrainingConfig(ema=0.95, sample_every=100, save_every=100)  # ours: hides the swing of single steps
    return replace(base, method=method, data=data, training=training, recipe="va-gan-small")
