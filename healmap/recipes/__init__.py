"""Recipes: functions that return a complete Experiment, one file per method's papers. A table one can read.

A method's own name stands for its default settings, so every method name is a recipe name as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module

from ..errors import ConfigError
from ..experiment import Experiment

# name -> module:function in this folder. A recipe's name begins with its method's; SimGAN and feature loss + GAN, which are
# settings of another paper's method, keep their own.
RECIPES: dict[str, str] = {
    "cyclegan": "cyclegan:cyclegan",
    "cyclegan-128": "cyclegan:cyclegan_128",
    "cyclegan-small": "cyclegan:small",
    "cyclegan-modality": "cyclegan:modality",
    "cyclegan-modality-small": "cyclegan:modality_small",
    "cyclegan-shape": "cyclegan:shape",
    "cyclegan-shape-third-party": "cyclegan:shape_third_party",
    "cyclegan-shape-modality": "cyclegan:shape_modality",
    "cyclegan-shape-small": "cyclegan:shape_small",
    "cyclegan-shape-modality-small": "cyclegan:shape_modality_small",
    "stargan": "stargan:stargan",
    "stargan-celeba": "stargan:celeba",
    "stargan-rafd": "stargan:rafd",
    "stargan-small": "stargan:small",
    "fixed-point-gan": "fixedpoint:fixed_point_gan",
    "fixed-point-gan-brats2013": "fixedpoint:brats2013",
    "fixed-point-gan-brats2013-stargan": "fixedpoint:brats2013_stargan",
    "fixed-point-gan-brats2013-delta": "fixedpoint:brats2013_delta",
    "fixed-point-gan-brats2013-fixed-point": "fixedpoint:brats2013_fixed_point",
    "fixed-point-gan-brats2013-released": "fixedpoint:brats2013_released",
    "fixed-point-gan-pe": "fixedpoint:pe",
    "fixed-point-gan-celeba": "fixedpoint:celeba",
    "fixed-point-gan-small": "fixedpoint:small",
    "fixed-point-gan-lgg": "fixedpoint:lgg",
    "descargan": "descargan:descargan",
    "descargan-chexpert": "descargan:chexpert",
    "descargan-released": "descargan:released",
    "descargan-small": "descargan:small",
    "healthygan": "healthygan:healthygan",
    "healthygan-covid": "healthygan:covid",
    "healthygan-xray14": "healthygan:xray14",
    "healthygan-migraine": "healthygan:migraine",
    "healthygan-a2b-covid": "healthygan:a2b_covid",
    "healthygan-a2b-cardiomegaly": "healthygan:a2b_cardiomegaly",
    "healthygan-a2b-simulated": "healthygan:a2b_simulated",
    "healthygan-small": "healthygan:small",
    "brainomaly": "brainomaly:brainomaly",
    "brainomaly-alzheimer": "brainomaly:alzheimer",
    "brainomaly-headache": "brainomaly:headache",
    "brainomaly-small": "brainomaly:small",
    "simgan": "simgan:simgan",
    "simgan-small": "simgan:small",
    "feature-loss-gan": "simgan:feature_loss_gan",
    "va-gan": "vagan:va_gan",
    "va-gan-synthetic": "vagan:synthetic",
    "va-gan-small": "vagan:small",
    "pix2pix": "pix2pix:pix2pix",
    "pix2pix-small": "pix2pix:small",
    "unit": "comparators:unit",
    "unit-shared": "comparators:unit_shared",
    "unit-small": "comparators:unit_small",
    "acl-gan": "comparators:acl_gan",
    "acl-gan-small": "comparators:acl_gan_small",
    "council-gan": "comparators:council_gan",
    "council-gan-male-to-female": "comparators:council_gan_male_to_female",
    "council-gan-small": "comparators:council_gan_small",
    "cogan": "comparators:cogan",
    "cogan-digits": "comparators:cogan_digits",
    "cogan-small": "comparators:cogan_small",
    "bigan": "comparators:bigan",
    "bigan-small": "comparators:bigan_small",
    "restoration": "restoration:restoration",
    "restoration-prototype": "restoration:prototype",
    "restoration-lgg": "restoration:lgg",
    "restoration-small": "restoration:small",
    "restoration-warp": "restoration:warped",
    "restoration-both": "restoration:both",
    "padim": "padim:padim",
    "padim-resnet18": "padim:resnet18",
    "padim-anomalib": "padim:anomalib",
    "padim-filters": "padim:filters",
    "padim-self": "padim:own",
    "padim-small": "padim:small",
    "patchcore": "patchcore:patchcore",
    "patchcore-anomalib": "patchcore:with_anomalib",
    "patchcore-random": "patchcore:random",
    "patchcore-filters": "patchcore:filters",
    "patchcore-self": "patchcore:self_trained",
    "patchcore-small": "patchcore:small",
    "resnet50-cam": "classifiers:resnet50_cam",
    "resnet50-cam-16": "classifiers:resnet50_cam_16",
    "resnet50-cam-32": "classifiers:resnet50_cam_32",
    "resnet50-cam-small": "classifiers:resnet50_cam_small",
    "densenet169": "classifiers:densenet169",
    "densenet169-small": "classifiers:densenet169_small",
    "dcls": "classifiers:dcls",
    "dcls-small": "classifiers:dcls_small",
    "vae": "autoencoders:vae",
    "vae-lesions": "autoencoders:vae_lesions",
    "vae-released": "autoencoders:vae_released",
    "vae-small": "autoencoders:vae_small",
    "autoencoder": "autoencoders:autoencoder",
    "autoencoder-small": "autoencoders:autoencoder_small",
    "autoencoder-unified": "autoencoders:unified",
    "autoencoder-unified-small": "autoencoders:unified_small",
    "denoising-autoencoder": "autoencoders:denoising",
    "denoising-autoencoder-small": "autoencoders:denoising_small",
    "f-anogan": "fanogan:f_anogan",
    "f-anogan-patches": "fanogan:patches",
    "f-anogan-small": "fanogan:small",
    "f-anogan-patches-small": "fanogan:patches_small",
    "ganomaly": "ganomaly:ganomaly",
    "ganomaly-cifar10": "ganomaly:cifar10",
    "ganomaly-baggage": "ganomaly:baggage",
    "ganomaly-256": "ganomaly:large",
    "ganomaly-small": "ganomaly:small",
    "alad": "alad:alad",
    "alad-cifar10": "alad:cifar10",
    "alad-128": "alad:at_128",
    "alad-small": "alad:small",
    "alocc": "alocc:alocc",
    "alocc-patches": "alocc:patches",
    "alocc-released": "alocc:released",
    "alocc-small": "alocc:small",
    "patch-scan-gan": "patch_scan:patch_scan_gan",
    "patch-scan-gan-small": "patch_scan:small",
}


def names() -> list[str]:
    """Names of all recipes, in the order of the table; methods without a recipe of their own stand at the end."""
    from .. import methods

    return [*RECIPES, *(m for m in methods.names() if m not in RECIPES)]


def get(name: str) -> Experiment:
    """The experiment of a recipe, or a method's default settings. Raises ConfigError naming the nearest known name."""
    if name in RECIPES:
        return _function(name)()
    from .. import methods

    if name in methods.names():
        return Experiment(method_name=name, method=methods.get(name).Config())
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean '{near[0]}'?" if near else "see healmap list recipes"
    raise ConfigError(f"unknown method or recipe '{name}'", hint=hint)


def describe(name: str) -> str:
    """One line: what the recipe's settings are for."""
    if name in RECIPES:
        return " ".join((_function(name).__doc__ or "").split("\n\n")[0].split())
    from .. import methods

    return f"default settings of {methods.get(name).title}"


def _function(name: str) -> Callable[[], Experiment]:
    module, _, function = RECIPES[name].partition(":")
    return getattr(import_module(f".{module}", __package__), function)
