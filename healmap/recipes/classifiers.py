"""Recipes of the plain classifiers: ResNet-50 with CAM, DenseNet-169, D_cls. Papers that compare with them name no training."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, DetectionConfig, Experiment
from ..methods.dcls import DCls
from ..methods.densenet169 import DenseNet169
from ..methods.resnet50_cam import ResNet50CAM
from . import descargan
from .small import for_minutes


def resnet50_cam() -> Experiment:
    """The whole network, a CAM of 8 x 8 at 256 px (Fixed-Point GAN, section 4.2)."""
    return Experiment(
        method_name="resnet50-cam",
        method=ResNet50CAM.Config(),
        data=DataConfig(size=256, batch_size=16),  # Fixed-Point GAN, section 4.2; batch: ours
        detection=DetectionConfig(min_area=10),  # Fixed-Point GAN, section 4.2: components above 10 pixels
        recipe="resnet50-cam",
    )


def resnet50_cam_16() -> Experiment:
    """Cut off after stage 3, a CAM of 16 x 16 at 256 px (Fixed-Point GAN, section 4.2)."""
    base = resnet50_cam()
    return replace(base, method=replace(base.method, stages=3), recipe="resnet50-cam-16")


def resnet50_cam_32() -> Experiment:
    """Cut off after stage 2, a CAM of 32 x 32 at 256 px (Fixed-Point GAN, section 4.2): its best."""
    base = resnet50_cam()
    return replace(base, method=replace(base.method, stages=2), recipe="resnet50-cam-32")


def resnet50_cam_small() -> Experiment:
    """64 px, cut off after stage 2, for a first look in minutes on two CPU cores."""
    # At 64 px this depth has a map of 8 x 8, the whole network one of 2 x 2; ten pixels would be a lesion there.
    base = resnet50_cam_32().with_(detection=DetectionConfig())
    return for_minutes(base, "resnet50-cam-small", lr=3e-4, decay="linear", steps=1000)  # ours: few steps


def densenet169() -> Experiment:
    """Pleural effusion in CheXpert films, 256 px (DeScarGAN, section 4.2)."""
    base = descargan.chexpert()
    return Experiment(
        method_name="densenet169",
        method=DenseNet169.Config(),
        data=replace(base.data, batch_size=16),  # films as DeScarGAN's; batch: ours
        recipe="densenet169",
    )


def densenet169_small() -> Experiment:
    """64 px, for a first look in minutes on two CPU cores; its map has 2 x 2 places."""
    return for_minutes(densenet169(), "densenet169-small", lr=3e-4, decay="linear", steps=600)  # ours: few steps


def dcls() -> Experiment:
    """Pleural effusion in CheXpert films, 256 px (DeScarGAN, section 4.2), batches as the GAN's."""
    return Experiment(method_name="dcls", method=DCls.Config(), data=descargan.chexpert().data, recipe="dcls")


def dcls_small() -> Experiment:
    """64 px, for a first look in minutes on two CPU cores; its map has 2 x 2 places."""
    base = dcls()
    data = replace(base.data, batch_size=16)  # ours: as the other small classifiers
    return for_minutes(base, "dcls-small", data, lr=3e-4, decay="linear", steps=1000)  # ours: few steps
