"""Generator, critic and encoder of f-AnoGAN (Schlegl et al., Medical Image Analysis 2019): WGAN-GP's residual networks.

Published for 64 px: four blocks between 64 x 64 and 4 x 4. For other sizes there are as many blocks as leave at least 4 pixels
of the shorter side, and channels are doubled up to eight times the first layer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

LEAST = 4  # pixels a side that the blocks leave; published: 4 x 4
BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # TensorFlow's defaults: epsilon 1e-3, moving average 0.99
LayerNorm = partial(nn.GroupNorm, 1, eps=1e-5)  # over channels and pixels of an image, one scale and offset per channel


class Generator(nn.Module):
    """A latent vector to an image. Batch norm: statistics of the batch while it trains, stored ones in ``eval()``.

    Args:
        channels: image channels.
        size: (H, W) of the images.
        latent: numbers in z (published: 128).
        width: channels at full resolution (published: 64).
    """

    def __init__(self, channels: int, size: tuple[int, int], *, latent: int = 128, width: int = 64) -> None:
        super().__init__()
        w = widths(size, width)[::-1]
        self.start = (w[0], *smallest(size))
        self.first = nn.Linear(latent, math.prod(self.start))
        self.blocks = nn.Sequential(*(Up(i, o) for i, o in pairwise(w)))
        self.norm = BatchNorm(width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, latent) -> (N, channels, H, W) in [-1, 1]."""
        h = self.blocks(self.first(z).unflatten(1, self.start))
        return torch.tanh(self.last(F.relu(self.norm(h))))


class Trunk(nn.Module):
    """An image to the numbers after the last block, without norm or ReLU: what critic and encoder have in common."""

    def __init__(self, channels: int, size: tuple[int, int], norm: Callable[[int], nn.Module], *, width: int) -> None:
        super().__init__()
        w = widths(size, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Down(i, o, norm) for i, o in pairwise(w)))
        self.numbers = w[-1] * math.prod(smallest(size))

    def features(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> f(x): (N, numbers); published: 8192."""
        return self.blocks(self.first(x)).flatten(1)


class Critic(Trunk):
    """Layer norm, so that each image is judged by itself: (N, channels, H, W) -> (N, 1), unbounded."""

    def __init__(self, channels: int, size: tuple[int, int], *, width: int = 64) -> None:
        super().__init__(channels, size, LayerNorm, width=width)
        self.last = nn.Linear(self.numbers, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


class Encoder(Trunk):
    """The critic's layers with batch norm: (N, channels, H, W) -> z (N, latent), in [-1, 1] if ``bounded``."""

    def __init__(
        self, channels: int, size: tuple[int, int], *, latent: int = 128, width: int = 64, bounded: bool = True
    ) -> None:
        super().__init__(channels, size, BatchNorm, width=width)
        self.last = nn.Linear(self.numbers, latent)
        self.bounded = bounded
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        z = self.last(self.features(x))
        return torch.tanh(z) if self.bounded else z


class Up(nn.Module):
    """Twice the size: norm, ReLU, nearest x 2, 3 x 3, norm, ReLU, 3 x 3, beside nearest x 2 and 1 x 1."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(given), BatchNorm(out)
        self.conv1 = DoublingConv(given, out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(given, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0)  # 1 x 1: the same before doubling as after it


class Down(nn.Module):
    """Half the size: norm, ReLU, 3 x 3, norm, ReLU, 3 x 3, mean of 2 x 2, beside the mean and 1 x 1."""

    def __init__(self, given: int, out: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(given), norm(given)
        self.conv1 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.conv2 = HalvingConv(given, out, 3, padding=1)
        self.shortcut = nn.Conv2d(given, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return h + self.shortcut(F.avg_pool2d(x, 2))


class HalvingConv(nn.Conv2d):
    """3 x 3 convolution and mean of 2 x 2, as one of 4 x 4 with stride 2: 4/9 of the multiplications."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, four_by_four(self.weight) / 4, self.bias, stride=2, padding=1)


class DoublingConv(nn.Conv2d):
    """Nearest x 2 and 3 x 3 convolution, as a transposed one of 4 x 4 with stride 2: 4/9 of the multiplications."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = four_by_four(self.weight.flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def four_by_four(weight: Tensor) -> Tensor:
    """The 3 x 3 kernels added up at their four places in 4 x 4: (o, i, 3, 3) -> (o, i, 4, 4)."""
    tall = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))


def initialise(network: nn.Module) -> None:
    """Uniform, standard deviation sqrt(4 / (fan in + fan out)); sqrt(2 / ...) before no ReLU: at an image and in shortcuts."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fans = (layer.weight.shape[0] + layer.weight.shape[1]) * math.prod(layer.weight.shape[2:])
            plain = name.endswith("shortcut") or (name == "first" and isinstance(layer, nn.Conv2d))
            bound = math.sqrt(3 * (2 if plain else 4) / fans)  # of a uniform distribution: sqrt(3) standard deviations
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def depth(size: tuple[int, int]) -> int:
    """How many blocks an image of (H, W) has: 4 for the published 64 px."""
    return max(0, (min(size) // LEAST).bit_length() - 1)


def smallest(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] >> depth(size), size[1] >> depth(size)


def widths(size: tuple[int, int], width: int) -> list[int]:
    """Channels from full resolution to the smallest; published: 64, 128, 256, 512, 512."""
    return [min(width << i, 8 * width) for i in range(depth(size) + 1)]


def check_size(height: int, width: int) -> None:
    """Raises ConfigError unless the blocks can halve the size."""
    step = 1 << max(1, depth((height, width)))
    for name, side in (("height", height), ("width", width)):
        if side % step or side < 2 * LEAST:
            raise ConfigError(
                f"{name} {side} cannot be halved {max(1, depth((height, width)))} times to at least {LEAST} pixels",
                hint=f"use {max(2 * LEAST, round(side / step) * step)} pixels; published: 64",
            )
