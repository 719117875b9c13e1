"""Recipes of StarGAN: Choi et al., CVPR 2018, and the authors' program where the paper is silent."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.stargan import StarGAN


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
    base = stargan()
    method = replace(
        base.method,
        width=16,  # ours: a quarter of the paper's, as all that follows for minutes instead of days
        blocks=4,
        critic_width=32,  # a critic stronger than its generator: the map needs its eye
        critic_layers=5,  # 64 px end at 2 x 2 patches
        n_critic=2,
        lr=4e-4,  # ours: four times the paper's, for narrow networks and few steps
        lambda_cls=5.0,  # ours: as Fixed-Point GAN's small recipe, lest the adversarial terms drown it
        score="mean",
        steps=1500,
    )
    training = replace(base.training, ema=0.99, sample_every=500, save_every=500)  # ours: hides the swing of single steps
    return replace(base, method=method, data=replace(base.data, size=64), training=training, recipe="stargan-small")
