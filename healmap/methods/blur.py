"""Smoothing of maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses.precision import at_least_float32
from ..types import Spec

REACH = 4.0  # standard deviations to either side: scipy.ndimage's, and with sigma 4 anomalib's 33 pixels


def check_sigma(sigma: float, spec: Spec) -> None:
    """Raises ConfigError where a blur is wider than the image."""
    if sigma > max(spec.height, spec.width):
        raise ConfigError(f"a blur of {sigma:g} pixels is wider than the image", hint="published: 4, at 224 and 256 pixels")


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """As ``scipy.ndimage.gaussian_filter``: the border is mirrored, its own pixels included. sigma: pixels; 0: unchanged.

    maps: (N, 1, H, W) of any size -> the same, in float32 at least, whatever the precision around: half of it would leave
    few values that differ.
    """
    if not sigma:
        return maps
    with torch.autocast(maps.device.type, enabled=False):
        return _blurred(at_least_float32(maps), sigma)


def _blurred(maps: Tensor, sigma: float) -> Tensor:
    radius = int(REACH * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    rows, columns = (_mirrored(side, radius, maps.device) for side in maps.shape[2:])
    maps = F.conv2d(maps[:, :, rows], kernel.view(1, 1, -1, 1))
    return F.conv2d(maps[:, :, :, columns], kernel.view(1, 1, 1, -1))


def _mirrored(side: int, radius: int, device: torch.device) -> Tensor:
    """Indices of the pixels -radius to side - 1 + radius in the row that is repeated back and forth without end."""
    i = torch.arange(-radius, side + radius, device=device) % (2 * side)
    return torch.minimum(i, 2 * side - 1 - i)
