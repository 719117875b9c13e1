"""U-Net and critic of VA-GAN (Baumgartner et al., CVPR 2018), in two dimensions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

LEVELS = 4  # of the U-Net
# The authors' epsilon is TensorFlow's default, so the momentum is taken to be its default as well: 0.99, by torch's count 0.01.
EPSILON, MOMENTUM = 1e-3, 0.01


class Generator(nn.Module):
    """U-Net of four levels whose decoder lifts only ``width`` channels from each level to the next: the additive map, linear.

    Batch norm: over the batch while training, with running averages in ``eval()``.

    Args:
        channels: image channels, in and out.
        width: channels at full resolution (published: 16).
    """

    def __init__(self, channels: int, *, width: int = 16) -> None:
        super().__init__()
        w = [width << level for level in range(LEVELS)]  # 16, 32, 64, 128
        self.down = nn.ModuleList([_pair(i, o) for i, o in zip([channels, *w[:-1]], w, strict=True)])
        self.lift = nn.ModuleList([_up(o, width) for o in w[:0:-1]])
        self.up = nn.ModuleList([_pair(width + o, o) for o in w[-2:0:-1]] + [_conv(width + width, width)])
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), H and W multiples of 8 -> M(x) of the same shape, unbounded."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(torch.cat([lift(x), skips.pop()], dim=1))
        return self.last(x)


class Critic(nn.Module):
    """Convolutions without norm, four poolings, and the mean over what is left: one number per image.

    width: channels of the first layer (published: 16).
    """

    def __init__(self, channels: int, *, width: int = 16) -> None:
        super().__init__()
        w = width
        layers: list[nn.Module] = []
        for stage in ([w], [2 * w], [4 * w, 4 * w], [8 * w, 8 * w], [16 * w, 16 * w, 16 * w]):
            layers += [nn.MaxPool2d(2)] if layers else []
            for out in stage:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
        self.main = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 1), unbounded."""
        return self.main(x).mean((2, 3))


def _conv(given: int, out: int) -> nn.Sequential:
    return _normed(nn.Conv2d(given, out, 3, padding=1, bias=False))


def _pair(given: int, out: int) -> nn.Sequential:
    return nn.Sequential(*_conv(given, out), *_conv(out, out))


def _up(given: int, out: int) -> nn.Sequential:
    return _normed(nn.ConvTranspose2d(given, out, 4, stride=2, padding=1, bias=False))


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels, eps=EPSILON, momentum=MOMENTUM)
    return nn.Sequential(convolution, norm, nn.ReLU())


def check_sizes(height: int, width: int) -> None:
    """Raises ConfigError unless the U-Net (multiples of 8) and the critic (at least 16) can take the size."""
    for name, side in (("height", height), ("width", width)):
        if side % 8 or side < 16:
            raise ConfigError(
                f"image {name} {side} does not fit the U-Net, which halves it three times, and the critic, four times",
                hint=f"use a multiple of 8 from 16 on, for example {max(16, round(side / 8) * 8)}",
            )
