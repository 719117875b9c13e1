"""Every method by its command-line name: a table one can read. A method's module is imported when it is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .base import Method

METHODS: dict[str, tuple[str, str]] = {
    "cyclegan": ("cyclegan", "CycleGAN"),
    "cyclegan-shape": ("cyclegan_shape", "CycleGANShape"),
    "stargan": ("stargan", "StarGAN"),
    "fixed-point-gan": ("fixedpoint", "FixedPointGAN"),
    "descargan": ("descargan", "DeScarGAN"),
    "healthygan": ("healthygan", "HealthyGAN"),
    "brainomaly": ("brainomaly", "Brainomaly"),
    "va-gan": ("vagan", "VAGAN"),
    "pix2pix": ("pix2pix", "Pix2Pix"),
    "unit": ("unit", "UNIT"),
    "acl-gan": ("aclgan", "ACLGAN"),
    "council-gan": ("councilgan", "CouncilGAN"),
    "cogan": ("cogan", "CoGAN"),
    "bigan": ("bigan", "BiGAN"),
    "restoration": ("restoration", "Restoration"),
    "padim": ("padim", "PaDiM"),
    "patchcore": ("patchcore", "PatchCore"),
    "resnet50-cam": ("resnet50_cam", "ResNet50CAM"),
    "densenet169": ("densenet169", "DenseNet169"),
    "dcls": ("dcls", "DCls"),
    "vae": ("vae", "VAE"),
    "autoencoder": ("autoencoder", "Autoencoder"),
    "denoising-autoencoder": ("denoising_autoencoder", "DenoisingAutoencoder"),
    "f-anogan": ("fanogan", "FAnoGAN"),
    "ganomaly": ("ganomaly", "GANomaly"),
    "alad": ("alad", "ALAD"),
    "alocc": ("alocc", "ALOCC"),
    "patch-scan-gan": ("patch_scan", "PatchScanGAN"),
}


def names() -> list[str]:
    """Command-line names of all methods, in the order of the table."""
    return list(METHODS)


def get(name: str) -> type[Method]:
    """The method class of that name. Raises ConfigError naming the nearest one."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see healmap list methods"
        raise ConfigError(f"unknown method '{name}'", hint=hint)
    module, cls = METHODS[name]
    return getattr(import_module(f".{module}", __package__), cls)
