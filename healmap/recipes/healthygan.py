"""Recipes of HealthyGAN (SASHIMI 2022) and of A2B-GAN, its first form (2021)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.healthygan import HealthyGAN
from .small import NARROW, for_minutes


def healthygan() -> Experiment:
    """The paper's settings (appendix A), 256 px."""
    return Experiment(
        method_name="healthygan",
        method=HealthyGAN.Config(),
        data=DataConfig(size=256, batch_size=16, flip=True),  # appendix A; flip: authors' program
        recipe="healthygan",
    )


def covid() -> Experiment:
    """COVID-19 chest films, 256 px (section 3.1)."""
    base = healthygan()
    data = replace(base.data, fit="crop")  # authors' program, which first cuts the top 8 % of the rows
    return replace(base, data=data, recipe="healthygan-covid")


def xray14() -> Experiment:
    """NIH ChestX-ray14, single findings, 128 px (section 3.2)."""
    base = healthygan()
    return replace(base, data=replace(base.data, size=128, batch_size=32), recipe="healthygan-xray14")  # appendix A


def migraine() -> Experiment:
    """Migraine brain MRI, 256 px (section 3.3)."""
    return replace(healthygan(), recipe="healthygan-migraine")  # appendix A


def a2b_covid() -> Experiment:
    """A2B-GAN, COVID-19 chest films, 256 px (sections 4.1 and 4.4)."""
    return replace(covid(), recipe="healthygan-a2b-covid")  # section 4.4: the same weights


def a2b_cardiomegaly() -> Experiment:
    """A2B-GAN, cardiomegaly in PA chest films, 256 px (sections 4.2 and 4.4)."""
    return replace(healthygan(), recipe="healthygan-a2b-cardiomegaly")  # section 4.4: the same weights


def a2b_simulated() -> Experiment:
    """A2B-GAN, simulated anomalies in CelebA faces, 128 px (sections 4.3 and 4.4)."""
    base = healthygan()
    method = replace(base.method, lambda_fs=0.001)  # section 4.4
    data = replace(
        base.data,
        size=128,  # section 4.4
        channels=3,
        fit="crop",  # ours: centre 178 as StarGAN's program; the paper is silent
        normalisation="window",
        window=(0.0, 255.0),
    )
    return replace(base, method=method, data=data, recipe="healthygan-a2b-simulated")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    return for_minutes(
        healthygan(),
        "healthygan-small",
        **NARROW,
        critic_layers=5,  # 64 px end at 2 x 2 patches
        lr=4e-4,  # ours: four times the paper's, for narrow networks and few steps
        steps=1500,  # ours: what two cores do in minutes
    )
