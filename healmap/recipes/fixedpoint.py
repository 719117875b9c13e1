"""Recipes of Fixed-Point GAN: Rahman Siddiquee et al., ICCV 2019."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, DetectionConfig, Experiment
from ..methods.fixedpoint import FixedPointGAN
from .small import NARROW, for_minutes


def fixed_point_gan() -> Experiment:
    """The paper's settings for grey images with two classes, 128 px."""
    return Experiment(
        method_name="fixed-point-gan",
        method=FixedPointGAN.Config(),  # appendix; lambda_id as for PE, the medical set of 128 px
        data=DataConfig(size=128, batch_size=16),  # batch: StarGAN's, the paper is silent
        detection=DetectionConfig(min_area=10),  # section 4.2: components above 10 pixels
        recipe="fixed-point-gan",
    )


def brats2013() -> Experiment:
    """BRATS 2013, FLAIR, 256 px (section 4.2 and appendix); synthetic and real images alike."""
    base = fixed_point_gan()
    method = replace(base.method, lambda_id=0.1, steps=300_000)  # appendix
    data = replace(base.data, size=256, fit="pad")  # appendix: padded to 300, centre 256
    return replace(base, method=method, data=data, recipe="fixed-point-gan-brats2013")


def brats2013_stargan() -> Experiment:
    """Ablation, Table 4, column StarGAN: neither delta map nor fixed-point translation."""
    return _ablation("stargan", delta=False, fixed_point=False)


def brats2013_delta() -> Experiment:
    """Ablation, Table 4, column w/ Delta."""
    return _ablation("delta", delta=True, fixed_point=False)


def brats2013_fixed_point() -> Experiment:
    """Ablation, Table 4, column w/ Fixed-Point Translation."""
    return _ablation("fixed-point", delta=False, fixed_point=True)


def brats2013_released() -> Experiment:
    """BRATS 2013 as the authors' program trains it: critic on cross-domain images, inert decay, batches of 8."""
    base = brats2013()
    method = replace(base.method, critic_fakes="released", decay="released", decay_share=1 / 3)  # the last 100,000 steps
    data = replace(base.data, batch_size=8)  # the program's own BRATS command
    return replace(base, method=method, data=data, recipe="fixed-point-gan-brats2013-released")


def pe() -> Experiment:
    """Pulmonary embolism patches, 128 px (section 4.3 and appendix)."""
    base = fixed_point_gan()
    method = replace(base.method, lambda_id=1.0, steps=200_000)  # appendix
    # The patch is the finding (section 4.3): no components are looked for.
    return replace(base, method=method, detection=DetectionConfig(), recipe="fixed-point-gan-pe")


def celeba() -> Experiment:
    """CelebA, five attributes, 128 px (section 4.1 and appendix)."""
    base = fixed_point_gan()
    data = replace(
        base.data,
        channels=3,
        fit="crop",  # section 4.1: centre 178, then 128
        normalisation="window",
        window=(0.0, 255.0),
        domain_column="attributes",
        attributes=("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"),  # section 4.1
    )
    method = replace(base.method, lambda_id=10.0, steps=200_000)  # appendix
    return replace(base, method=method, data=data, recipe="fixed-point-gan-celeba")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    return for_minutes(
        fixed_point_gan(),
        "fixed-point-gan-small",
        **NARROW,
        critic_layers=5,  # 64 px end at 2 x 2 patches
        n_critic=2,  # ours: five critic steps a move leave G unmoved in minutes
        lr=4e-4,  # ours: four times the paper's, for narrow networks and few steps
        lambda_domain=5.0,  # ours: with 1 the adversarial terms drown the domain loss, and some seeds learn late
        score="mean",  # ours: steadier than the maximum while G still leaves specks
        steps=1500,  # ours: what two cores do in about three minutes
    )


def lgg() -> Experiment:
    """FLAIR slices of the head at 64 px on CPU cores: about an hour; what helped is in docs/results.md."""
    base = small()
    method = replace(
        base.method,
        width=24,
        critic_width=48,
        # Ours: with the paper's 1 the critic's domain loss stood at chance (0.69) after 650 steps, drowned by the adversarial
        # terms, and nothing was learnt; with 8 it fell to 0.38 within 150.
        lambda_domain=8.0,
        decay="linear",
        steps=5000,
    )
    data = replace(base.data, normalisation="foreground-median")  # brightness differs from scanner to scanner
    training = replace(base.training, ema=0.995, sample_every=250)
    return replace(base, method=method, data=data, training=training, recipe="fixed-point-gan-lgg")


def _ablation(column: str, **switches: Any) -> Experiment:
    base = brats2013()
    return replace(base, method=replace(base.method, **switches), recipe=f"fixed-point-gan-brats2013-{column}")
