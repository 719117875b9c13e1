"""Recipes of the patch-scan GAN (SPIE Medical Imaging 2017). The paper's settings are not known; all are ours."""

from __future__ import annotations

from typing import Any

from ..experiment import DataConfig, Experiment
from ..methods.patch_scan import PatchScanGAN
from .small import for_minutes


def patch_scan_gan() -> Experiment:
    """Patches of 32 px around every pixel of slices of 240 px, the size of BraTS."""
    data = DataConfig(size=240, batch_size=16)  # ours: 16 images give a batch of 64 patches
    return Experiment(method_name="patch-scan-gan", method=PatchScanGAN.Config(), data=data, recipe="patch-scan-gan")


def small() -> Experiment:
    """Patches of 16 px in images of 64 px with narrow networks, for a first look in minutes on two CPU cores."""
    base = patch_scan_gan()
    # Ours: a quarter of the image's side shows what surrounds a lesion; every second pixel is a centre.
    method: dict[str, Any] = {"patch": 16, "stride": 2, "latent": 32, "width": 32, "smooth": 2.0, "steps": 10_000}
    return for_minutes(base, "patch-scan-gan-small", **method)
