"""Overlapping patches of images: drawn at random for training, cut and stitched at inference.

A patch is named by its top left corner. Patches without anything of the body are left out in training and at inference alike:
what a method never saw it cannot judge. N images, C channels, H rows, W columns; a patch has h rows and w columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses.precision import at_least_float32
from .corruption import foreground

Corner = tuple[int, int]  # row, column
Size = tuple[int, int]
Where = Literal["auto", "all"]  # patches that hold a part of the body, or all


def check_patch(side: int, height: int, width: int) -> None:
    """Raises ConfigError unless a square patch fits into the image."""
    if side > min(height, width):
        what = f"a patch of {side} pixels does not fit into images of {height} x {width}"
        raise ConfigError(what, hint=f"use images of at least {side} pixels, or a smaller patch")


def occupied(image: Tensor, size: Size, where: Where = "auto") -> Tensor:
    """Which patches hold something of the body, by corner: (N, C, H, W) -> (N, H - h + 1, W - w + 1) bool.

    All of them where there is no body to be found, and for ``where="all"``.
    """
    rows, columns = image.shape[2] - size[0] + 1, image.shape[3] - size[1] + 1
    if where == "all" or (rows, columns) == (1, 1):
        return torch.ones(len(image), rows, columns, dtype=torch.bool, device=image.device)
    body = foreground(image).float()
    tall = F.max_pool2d(body, (size[0], 1), stride=1)
    found = F.max_pool2d(tall, (1, size[1]), stride=1)[:, 0] > 0
    return found | ~found.flatten(1).any(1)[:, None, None]


def draw(image: Tensor, size: Size, count: int, where: Where = "auto") -> Tensor:
    """``count`` random patches of each image, from torch's generator: (N, C, H, W) -> (N * count, C, h, w)."""
    allowed = occupied(image, size, where)
    place = torch.multinomial(allowed.flatten(1).float(), count, replacement=True)  # (N, count)
    top, left = place // allowed.shape[2], place % allowed.shape[2]
    views = image.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (N, C, rows, columns, h, w), no copy
    which = torch.arange(len(image), device=image.device)[:, None]
    return views[which, :, top, left].flatten(0, 1)


def starts(length: int, side: int, stride: int) -> list[int]:
    """First pixels of patches that cover a side: evenly spread, at most ``stride`` apart, the last flush with the end."""
    gaps = -(-(length - side) // stride)
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]


def corners(image: Size, size: Size, stride: int) -> list[Corner]:
    """Patches that cover an image of (H, W)."""
    return [(top, left) for top in starts(image[0], size[0], stride) for left in starts(image[1], size[1], stride)]


def cut(image: Tensor, places: Sequence[Corner], size: Size) -> Tensor:
    """The patches at K corners: (N, C, H, W) -> (K * N, C, h, w), all images' first patch first."""
    return torch.cat([image[:, :, top : top + size[0], left : left + size[1]] for top, left in places])


class Stitch:
    """Puts patches back: a pixel is the mean of the patches that hold it. Memory of one batch, however many there are."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.sum = torch.zeros_like(at_least_float32(image))
        self.count = torch.zeros_like(self.sum[:, :1])

    def add(self, patches: Tensor, places: Sequence[Corner], weight: Tensor) -> None:
        """patches: (K * N, C, h, w) as :func:`cut` gives them, weight: (K, N) >= 0."""
        h, w = patches.shape[2:]
        for (top, left), patch, factor in zip(places, patches.split(len(self.image)), weight, strict=True):
            factor = factor[:, None, None, None].to(self.sum)
            self.sum[:, :, top : top + h, left : left + w] += factor * patch
            self.count[:, :, top : top + h, left : left + w] += factor

    def mean(self) -> Tensor:
        """(N, C, H, W); the image itself where no patch lay."""
        mean = self.sum / self.count.where(self.count > 0, 1)
        return torch.where(self.count > 0, mean, self.image).to(self.image.dtype)


def at_centres(values: Tensor, image: Size, size: Size, stride: int) -> Tensor:
    """One value per patch, shown at the patches' centres: (N, C, n, m), corners ``stride`` apart -> (N, C, H, W).

    Linear between centres; up to the border, which is no patch's centre, the nearest.
    """
    rows, columns = (_hats(values.shape[i + 2], image[i], size[i], stride).to(values) for i in range(2))
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T


def _hats(count: int, length: int, side: int, stride: int) -> Tensor:
    """(length, count): each pixel's shares in the patches' values, which lie at i * stride + (side - 1) / 2."""
    place = (torch.arange(length, dtype=torch.float64) - (side - 1) / 2) / stride
    distance = place.clamp(0, count - 1)[:, None] - torch.arange(count)
    return (1 - distance.abs()).clamp_min(0)
