"""ALOCC's networks (Sabokrou et al., CVPR 2018): a refiner and a discriminator of 5 x 5 convolutions with stride 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .batchnorm import BatchNorm, Statistics
from .start import CONVOLUTIONS, normal_start

SLOPE, SPREAD = 0.2, 0.02
LAYERS = (*CONVOLUTIONS, nn.Linear)  # whose weights begin at N(0, SPREAD²)
LEAST = 17  # pixels a side: the discriminator's fourth halving leaves two


class Down(nn.Conv2d):
    """5 x 5, stride 2, TensorFlow's SAME border: n pixels become ⌈n / 2⌉."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__(given, made, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (border(n) for n in x.shape[2:])
        return super().forward(F.pad(x, (left, right, top, bottom)))


class Up(nn.ConvTranspose2d):
    """The transpose of :class:`Down`, back to the size that is asked for."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__(given, made, 5, stride=2)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:  # type: ignore[override]
        whole = super().forward(x)
        (top, _), (left, _) = (border(n) for n in size)
        return whole[:, :, top : top + size[0], left : left + size[1]]


class Refiner(nn.Module):
    """R: (N, channels, H, W) -> the same, in [-1, 1].

    width: channels of the first layer (published: 32), doubled twice on the way down; the way up has ``width`` and half of it.
    """

    def __init__(self, channels: int, *, width: int = 32, statistics: Statistics = "stored") -> None:
        super().__init__()
        down, up = [width, 2 * width, 4 * width], [width, max(1, width // 2)]
        self.down = nn.ModuleList(Down(i, o) for i, o in zip([channels, *down], down, strict=False))
        self.down_norms = nn.ModuleList(BatchNorm(c, statistics) for c in down)
        self.up = nn.ModuleList(Up(i, o) for i, o in zip([down[-1], *up], [*up, channels], strict=True))
        self.up_norms = nn.ModuleList(BatchNorm(c, statistics) for c in up)
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, x: Tensor) -> Tensor:
        sizes = []
        for layer, norm in zip(self.down, self.down_norms, strict=True):
            sizes.append(x.shape[2:])
            x = F.leaky_relu(norm(layer(x)), SLOPE)
        for layer, norm in zip(self.up, self.up_norms, strict=False):
            x = F.relu(norm(layer(x, sizes.pop())))
        return torch.tanh(self.up[-1](x, sizes.pop()))


class Discriminator(nn.Module):
    """D: (N, channels, H, W) -> (N, 1), logit of "real". width: channels of the first layer (published: 16)."""

    def __init__(self, channels: int, size: tuple[int, int], *, width: int = 16, statistics: Statistics = "stored") -> None:
        super().__init__()
        w = [width << k for k in range(4)]
        layers: list[nn.Module] = []
        for k, (given, made) in enumerate(zip([channels, *w], w, strict=False)):
            layers += [Down(given, made), *([BatchNorm(made, statistics)] if k else []), nn.LeakyReLU(SLOPE)]
        rest = -(-size[0] // 16) * -(-size[1] // 16)
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(w[-1] * rest, 1)
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).flatten(1))


def border(n: int) -> tuple[int, int]:
    """Pixels that TensorFlow's SAME adds before and after n of them, for kernel 5 and stride 2."""
    both = max(0, (-(-n // 2) - 1) * 2 + 5 - n)
    return both // 2, both - both // 2


def check_sizes(height: int, width: int) -> None:
    """Raises ConfigError unless something is left to normalise after four halvings."""
    if min(height, width) < LEAST:
        raise ConfigError(
            f"images of {height} x {width} have one pixel left after the discriminator's four halvings",
            hint=f"use at least {LEAST} pixels a side; published: 28 and 45",
        )
