"""Recipes of DeScarGAN: Wolleb et al., MICCAI 2020, and the authors' code where the paper is silent."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.descargan import DeScarGAN
from .small import for_minutes


def descargan() -> Experiment:
    """The paper's settings for its ellipses, 256 px (sections 3 and 4.1)."""
    return Experiment(
        method_name="descargan",
        method=DeScarGAN.Config(flip_vertical=True),  # authors' code: flips both ways
        data=DataConfig(
            size=256,  # section 3
            batch_size=10,  # authors' code
            normalisation="percentile",
            percentiles=(0.0, 100.0),  # authors' code: by each image's own extremes, there of healthy images only
            flip=True,  # authors' code
        ),
        recipe="descargan",
    )


def chexpert() -> Experiment:
    """Pleural effusion in CheXpert films, 256 px (section 4.2)."""
    base = descargan()
    # The authors' code scales these by each image's extremes when it tests, and so do we when we train. Its flips mistook the
    # rows of these files for channels; ours turn a film left to right only: no patient hangs upside down.
    return replace(base, method=replace(base.method, flip_vertical=False), recipe="descargan-chexpert")


def released() -> Experiment:
    """The ellipses as the authors' code trains on them: squared errors, noise, clipped gradients, and its two slips."""
    base = descargan()
    method = replace(base.method, losses="released")
    training = replace(base.training, clip=10.0)  # authors' code
    return replace(base, method=method, training=training, recipe="descargan-released")


def small() -> Experiment:
    """64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base = descargan()
    return for_minutes(
        base,
        "descargan-small",
        replace(base.data, batch_size=8),
        width=12,  # ours: a fifth of the paper's, as all that follows for minutes instead of days
        critic_width=12,
        # Ours: squared errors fade as the image comes near and leave room for the change to be learnt; near the end of the
        # paper's training eqs. (3) and (6) weigh ten times as much, which a run of minutes does not outlast.
        losses="mended",
        noise=0.0,  # ours: the map reads differences no larger than this noise
        lambda_cls_g=5.0,  # ours: the class must be heard within minutes, as in the other small recipes
        n_critic=2,  # ours: five critic steps a move leave G unmoved in minutes
        lr=5e-4,  # ours: five times the paper's, for narrow networks and few steps
        decay="linear",  # ours: the last half settles the specks
        steps=2000,
    )
