"""Recipes of StarGAN: Choi et al., CVPR 2018, and the authors' program where the paper is silent."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.stargan import StarGAN
from .small import NARROW, for_minutes


def stargan() -> Experiment:
    """The paper's settings for grey images with two classes."""
    return Experiment(
        method_name="stargan",
        method=StarGAN.Config(),  # 200,000 steps: authors' program
        data=DataConfig(size=128, batch_size=16, flip=True),  # paper and authors' program
        recipe="stargan",
    )


def celeba() -> Experiment:
    """CelebA, five attributes, 128 px."""
    base = stargan()
    data = replace(
        base.data,
        channels=3,
        fit="crop",  # authors' program: centre 178 of 178 x 218, then 128
        normalisation="window",  # authors' program: mean and deviation 0.5 of 8-bit values
        window=(0.0, 255.0),
        domain_column="attributes",
        attributes=("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"),  # authors' program
    )
    return replace(base, data=data, recipe="stargan-celeba")


def rafd() -> Experiment:
    """RaFD, eight expressions in the column class, 128 px."""
    base = celeba()
    data = replace(base.data, domain_column="class", attributes=())  # centre crop 256, then 128: authors' program
    return replace(base, data=data, recipe="stargan-rafd")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    return for_minutes(
        stargan(),
        "stargan-small",
        **NARROW,
        critic_layers=5,  # 64 px end at 2 x 2 patches
        n_critic=2,  # ours: five critic steps a move leave G unmoved in minutes
        lr=4e-4,  # ours: four times the paper's, for narrow networks and few steps
        lambda_cls=5.0,  # ours: as Fixed-Point GAN's small recipe, lest the adversarial terms drown it
        score="mean",  # ours: steadier than the maximum while G still leaves specks
        steps=1500,  # ours: what two cores do in about three minutes
    )
