"""Recipes of the methods that give healthy images back: VAE, plain autoencoder, denoising autoencoder."""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, DetectionConfig, Experiment
from ..methods.autoencoder import Autoencoder
from ..methods.denoising_autoencoder import DenoisingAutoencoder
from ..methods.vae import VAE
from .small import for_minutes


def vae() -> Experiment:
    """Baur et al. 2021, 128 px: the code's mean, no prior about lesions."""
    return Experiment(
        method_name="vae",
        method=VAE.Config(),
        data=DataConfig(
            size=128,  # paper
            batch_size=8,  # authors' program
            normalisation="foreground-median",  # ours: brightness differs from scanner to scanner
        ),
        recipe="vae",
    )


def vae_lesions() -> Experiment:
    """As Baur et al. read the map of FLAIR images: bright lesions well inside the brain, and no specks."""
    base = vae()
    method = replace(
        base.method,
        sign="bright",  # paper
        body="threshold",  # theirs is the brain's mask, which we have not
        erode=12,  # authors' program: so many erosions, one after the other
        bright_quantile=0.9,  # authors' program, of the volume; ours of the image
        median=5,  # authors' program, in three dimensions
    )
    detection = DetectionConfig(min_area=7)  # authors' program: 7 voxels and fewer are dropped
    return replace(base, method=method, detection=detection, recipe="vae-lesions")


def vae_released() -> Experiment:
    """As the authors' program computes: scales in the place of norms, and a code drawn by chance at test time, too."""
    base = vae()
    return replace(base, method=replace(base.method, norm="scale", samples=1), recipe="vae-released")


def vae_small() -> Experiment:
    """VAE at 64 px, for a first look in minutes on two CPU cores."""
    return for_minutes(vae(), "vae-small", replace(vae().data, batch_size=16), **SHORT)


def autoencoder() -> Experiment:
    """How well StarGAN's generator can give images back, 128 px: the floor under every translation's error, no detector."""
    return Experiment(
        method_name="autoencoder",
        method=Autoencoder.Config(),
        data=DataConfig(size=128, batch_size=16),  # Fixed-Point GAN's on CelebA: size; StarGAN's: batch
        recipe="autoencoder",
    )


def autoencoder_small() -> Experiment:
    """The measuring stick at 64 px with a narrow generator, for a first look in minutes on two CPU cores."""
    return for_minutes(autoencoder(), "autoencoder-small", width=16, blocks=4, lr=1e-3, steps=1000)  # ours


def unified() -> Experiment:
    """Baur et al. 2021, 128 px: the autoencoder with a code of 128 numbers."""
    method = Autoencoder.Config(network="unified", steps=VAE.Config().steps)  # paper: one architecture, one training
    return replace(vae(), method_name="autoencoder", method=method, recipe="autoencoder-unified")


def unified_small() -> Experiment:
    """The autoencoder with a bottleneck at 64 px, for a first look in minutes on two CPU cores."""
    base = unified()
    return for_minutes(base, "autoencoder-unified-small", replace(base.data, batch_size=16), **SHORT)


def denoising() -> Experiment:
    """Kascenas et al. 2022, 128 px."""
    return Experiment(
        method_name="denoising-autoencoder",
        method=DenoisingAutoencoder.Config(),
        data=DataConfig(
            size=128,  # paper
            batch_size=16,  # authors' program
            flip=False,  # authors' program
            normalisation="foreground-median",  # ours: leaves room for bright lesions, which their scale does not clip
        ),
        recipe="denoising-autoencoder",
    )


def denoising_small() -> Experiment:
    """Denoising autoencoder at 64 px and a quarter of the width, for a first look in minutes on two CPU cores."""
    base = denoising()
    return for_minutes(
        base,
        "denoising-autoencoder-small",
        replace(base.data, flip=True),  # ours: small sets of images
        width=16,  # ours
        halves=1,  # ours: the rate falls once
        body="auto",  # ours: not every background is exactly black
        lr=1e-3,  # ours: ten times the authors', for a narrow network and few steps
        steps=1000,  # ours: what two cores do in minutes
    )


# Ours, for few steps: three times the rate, and no dropout. At ten times the rate the VAE's deviations blow up after 500 steps.
SHORT = {"lr": 3e-4, "dropout": 0.0, "steps": 3000}
