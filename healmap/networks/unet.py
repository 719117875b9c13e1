"""A small U-Net (Ronneberger et al., MICCAI 2015) whose untrained output is zero.

Ours, with these differences from the paper: padded convolutions, one normalisation per block with statistics of the one
image (never of the batch), nearest-neighbour upsampling (its backward pass is deterministic on a GPU, that of bilinear is
not), and a last layer that starts at zero, so that whatever the output is added to starts as the identity.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .norm import InstanceNorm

Norm = Literal["instance", "group", "none"]


def check_size(height: int, width: int, multiple: int, levels: int) -> None:
    """Raises ConfigError, with the nearest sizes that work, unless both sides are multiples of ``multiple`` and the
    deepest level keeps at least two pixels a side (statistics over one pixel are none)."""
    for name, side in (("height", height), ("width", width)):
        if side % multiple or side < 2 * multiple:
            below = max(side // multiple, 2) * multiple
            above = max(-(-side // multiple), 2) * multiple
            sizes = f"{below} or {above}" if below != above else f"{above}"
            raise ConfigError(
                f"{name} {side} does not suit a U-Net that halves it {levels} times",
                where=f"image {height} x {width}",
                hint=f"use --size {sizes}, or fewer method.levels",
            )


class Block(nn.Module):
    """conv 3x3 - ReLU - conv 3x3 - norm - ReLU: (N, c_in, H, W) -> (N, c_out, H, W).

    The norm stands last: features that are not centred give the zeroed last layer nothing but an offset to shrink.
    """

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1, bias=norm == "none")
        self.norm = _norm(norm, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(F.relu(self.first(x))))


def _norm(norm: Norm, channels: int) -> nn.Module:
    """A normalisation and its ReLU."""
    if norm == "instance":
        return InstanceNorm(channels, relu=True)
    if norm == "group":
        return nn.Sequential(nn.GroupNorm(max(1, channels // 8), channels), nn.ReLU())
    return nn.ReLU()


class UNet(nn.Module):
    """(N, channels_in, H, W) -> (N, channels_out, H, W), all zeros before training.

    Args:
        width: channels at full resolution; they double at every level up to 8 times as many.
        levels: how often the image is halved.
        stem: 2 folds each 2x2 square of pixels into channels first, and back at the end: half the time at equal width.

    H and W must be multiples of ``multiple`` = stem * 2^levels, see :func:`check_size`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int = 16, levels: int = 4, stem: int = 1, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        self.stem, self.multiple = stem, stem * 2**levels
        channels = [width * min(2**level, 8) for level in range(levels + 1)]
        ins = [channels_in * stem**2, *channels[:-1]]
        self.down = nn.ModuleList(Block(i, o, norm) for i, o in zip(ins, channels, strict=True))
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))  # (deeper, shallower), from the bottom up
        self.lift = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in pairs)
        self.up = nn.ModuleList(Block(2 * shallow, shallow, norm) for _, shallow in pairs)
        self.last = nn.Conv2d(width, channels_out * stem**2, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # torch's own start shrinks a ReLU network's
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # signal to nothing within a few blocks
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pixel_unshuffle(x, self.stem) if self.stem > 1 else x  # (N, C stem², H/stem, W/stem)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h)
            skips.append(h)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            h = F.interpolate(lift(h), scale_factor=2.0, mode="nearest")
            h = block(torch.cat((h, skips.pop()), dim=1))
        h = self.last(h)
        return F.pixel_shuffle(h, self.stem) if self.stem > 1 else h
