"""Recipes of PaDiM. The published ones need the user's file of ImageNet weights (``--set method.backbone.weights=FILE``)."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment, TrainingConfig
from ..methods.backbone import BackboneConfig
from ..methods.padim import PaDiMConfig


def padim() -> Experiment:
    """PaDiM with Wide ResNet-50-2, 550 channels, as in the paper's tables; a state of 4.2 GB."""
    wide = PaDiMConfig(backbone=BackboneConfig(name="wide_resnet50_2"))
    # Paper: 256 px of which the middle 224 are used; ours: the whole image, for anatomy reaches the border.
    data = DataConfig(size=224, batch_size=32, flip=False)  # no augmentation in the paper; batches change nothing but speed
    training = TrainingConfig(
        precision="32",  # ours: distances count in standard deviations, some of which half precision's rounding reaches
        save_every=10_000,  # ours: the state is large, and a fit takes minutes
    )
    return Experiment(method_name="padim", method=wide, data=data, training=training, recipe="padim")


def resnet18() -> Experiment:
    """PaDiM with ResNet-18, 100 channels, the paper's light one: a state of 0.2 GB."""
    base = padim()
    narrow = replace(base.method, backbone=BackboneConfig(name="resnet18"))
    return replace(base, method=narrow, recipe="padim-resnet18")


def anomalib() -> Experiment:
    """PaDiM with ResNet-18 as anomalib runs it: 256 px, a further 1e-5 on the covariance's diagonal."""
    base = resnet18()
    method = replace(base.method, epsilon_extra=1e-5)
    return replace(base, method=method, data=replace(base.data, size=256), recipe="padim-anomalib")


def filters() -> Experiment:
    """PaDiM on a fixed bank of oriented filters: neither weights nor training."""
    base = padim()
    # Ours: absolute epsilon, since the filters' features are scaled like ImageNet's.
    method = replace(base.method, backbone=BackboneConfig(name="filters"))
    return replace(base, method=method, data=replace(base.data, size=128), recipe="padim-filters")


def own() -> Experiment:
    """PaDiM on a network trained first on the healthy images themselves."""
    base = filters()
    method = replace(base.method, backbone=BackboneConfig(name="self"))
    return replace(base, method=method, data=replace(base.data, batch_size=16), recipe="padim-self")


def small() -> Experiment:
    """PaDiM on filters at 64 px, for a first look in seconds on two CPU cores."""
    base = filters()
    method = replace(base.method, sigma=1.0)  # ours: the paper's 4 pixels of 224, and of 64 the same share
    return replace(base, method=method, data=replace(base.data, size=64), recipe="padim-small")
