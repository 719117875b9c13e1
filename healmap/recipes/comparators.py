"""Recipes of the image-to-image comparators: UNIT, ACL-GAN, Council GAN, CoGAN, and BiGAN as CycleGAN's paper adapts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, Experiment
from ..methods.aclgan import ACLGAN
from ..methods.bigan import BiGAN
from ..methods.cogan import CoGAN
from ..methods.councilgan import CouncilGAN
from ..methods.unit import UNIT


def unit() -> Experiment:
    """UNIT as the authors' second program trains it, 256 px, nothing shared."""
    data = DataConfig(size=256, batch_size=1)  # authors' program
    return Experiment(method_name="unit", method=UNIT.Config(), data=data, recipe="unit")


def unit_shared() -> Experiment:
    """UNIT with the last encoder and the first decoder block shared between the domains, as the paper has it."""
    base = unit()
    return replace(base, method=replace(base.method, share_last=True), recipe="unit-shared")


def unit_small() -> Experiment:
    """UNIT at 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    return _small(unit(), blocks=3, critic_layers=3, scales=2, steps=1000)


def acl_gan() -> Experiment:
    """ACL-GAN as the authors' program trains it for male to female, 256 px."""
    data = DataConfig(size=256, batch_size=3)  # authors' program
    return Experiment(method_name="acl-gan", method=ACLGAN.Config(), data=data, recipe="acl-gan")


def acl_gan_small() -> Experiment:
    """ACL-GAN at 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    # Ours: lesions are smaller than what makes a face, and a healthy image needs no mask; 64 px have 1/16 of the pixels that
    # the bounds' weight counts.
    bounds = {"lower": 0.0, "upper": 0.2, "delta": 0.016}
    return _small(acl_gan(), blocks=3, critic_layers=3, scales=2, g_steps=1, steps=800, **bounds)


def council_gan() -> Experiment:
    """Council GAN as the authors' program removes glasses, 128 px."""
    data = DataConfig(size=128, batch_size=3)  # authors' program
    return Experiment(method_name="council-gan", method=CouncilGAN.Config(), data=data, recipe="council-gan")


def council_gan_male_to_female() -> Experiment:
    """Council GAN as the authors' program trains it for male to female, 256 px: large masks are allowed."""
    base = council_gan()
    released = {"lambda_council": 4.0, "lambda_size": 0.5, "lambda_binary": 0.5, "lambda_tv": 0.0, "focus_start": 50_000}
    method = replace(base.method, **released)  # authors' program
    return replace(base, method=method, data=replace(base.data, size=256), recipe="council-gan-male-to-female")


def council_gan_small() -> Experiment:
    """Council GAN of two at 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    starts = {"council_start": 50, "focus_start": 100}  # ours: the same order as the authors', within so few steps
    return _small(council_gan(), members=2, blocks=3, style=8, critic_layers=3, council_steps=1, steps=600, **starts)


def cogan() -> Experiment:
    """CoGAN at 64 px with the authors' settings for digits, one doubling and one halving more."""
    base = cogan_digits()
    # Ours: at 64 px four doublings start from the 4 x 4 that three start from at 28 px.
    method = replace(base.method, layers=4, width=64, critic_widths=(20, 50, 100, 500))
    return replace(base, method=method, data=replace(base.data, size=64), recipe="cogan")


def cogan_digits() -> Experiment:
    """CoGAN as the authors' program trains it on digits and their edges, 28 px."""
    data = DataConfig(size=28, batch_size=64, flip=False)  # authors' program
    return Experiment(method_name="cogan", method=CoGAN.Config(), data=data, recipe="cogan-digits")


def cogan_small() -> Experiment:
    """CoGAN at 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    base = cogan()
    method = replace(base.method, width=16, latent=64, critic_widths=(16, 32, 64, 128), search_steps=40, steps=2000)  # ours
    training = replace(base.training, sample_every=500, save_every=500)
    return replace(base, method=method, data=replace(base.data, batch_size=16), training=training, recipe="cogan-small")


def bigan() -> Experiment:
    """BiGAN between two sets of images with CycleGAN's networks and schedule, 256 px."""
    data = DataConfig(size=256, batch_size=1)  # CycleGAN, section 4
    return Experiment(method_name="bigan", method=BiGAN.Config(), data=data, recipe="bigan")


def bigan_small() -> Experiment:
    """BiGAN between two sets of images at 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    return _small(bigan(), blocks=4, steps=1500)


def _small(base: Experiment, **method: Any) -> Experiment:
    """64 px, a quarter of the width; ours, as are the settings given: minutes instead of days."""
    narrow = {"width": 16, "critic_width": 32, "lr": 4e-4, **method}
    return replace(
        base,
        method=replace(base.method, **narrow),
        data=replace(base.data, size=64, batch_size=4),  # processors waste less on four images than on one
        training=replace(base.training, ema=0.99, sample_every=500, save_every=500),  # hides the swing of single steps
        recipe=f"{base.recipe}-small",
    )
