"""Generator and critic of small square patches for the patch-scan GAN: DCGAN's form (Radford et al., ICLR 2016).

The paper's networks are not known; these are ours. The critic has neither norm nor border: on an image of any size it answers
at each place exactly what it answers to the patch there, all places in one pass.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .start import normal_start

LEAST = 4  # pixels a side that the generator starts from


class Generator(nn.Module):
    """A latent vector to a patch: transposed convolutions with batch norm.

    Args:
        channels: image channels.
        side: of the patch, pixels; a power of two.
        latent: numbers in z.
        width: channels before the last layer; doubled by each layer towards z.
    """

    def __init__(self, channels: int, side: int, *, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        w = [width << i for i in reversed(range(halvings(side)))]
        self.first = nn.ConvTranspose2d(latent, w[0], LEAST, bias=False)
        self.doublings = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False) for i, o in pairwise(w))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in w)
        self.last = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        normal_start(self, norms=(nn.BatchNorm2d,))  # DCGAN's

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, latent) -> (N, channels, side, side) in [-1, 1]."""
        h = F.relu(self.norms[0](self.first(z[:, :, None, None])))
        for conv, norm in zip(self.doublings, self.norms[1:], strict=True):
            h = F.relu(norm(conv(h)))
        return torch.tanh(self.last(h))


class Critic(nn.Module):
    """Patches, or images made of them, to the logit of "real": (N, channels, H, W) -> (N, 1, n, m).

    Kernels 4, 3, ..., 3 with stride 2 and a last 3 without see exactly ``side`` pixels, and no border is added. So of an image
    the answer (i, j) is that to the patch whose corner lies at ``step`` times (i, j).

    Args:
        channels: image channels.
        side: of the patch, pixels; a power of two.
        width: channels of the first layer; doubled by each further one.
    """

    def __init__(self, channels: int, side: int, *, width: int = 64) -> None:
        super().__init__()
        w = [channels, *(width << i for i in range(halvings(side)))]
        kernels = [4, *([3] * (len(w) - 2))]
        self.halvings = nn.ModuleList(nn.Conv2d(i, o, k, stride=2) for (i, o), k in zip(pairwise(w), kernels, strict=True))
        self.last = nn.Conv2d(w[-1], 1, 3)
        self.side, self.step = side, 1 << halvings(side)
        normal_start(self, norms=(nn.BatchNorm2d,))  # DCGAN's

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.halvings:
            x = F.leaky_relu(conv(x), 0.2)
        return self.last(x)

    def scan(self, image: Tensor, stride: int) -> Tensor:
        """The answers to all patches ``stride`` pixels apart: (N, C, H, W) -> (N, 1, n, m). stride: a divisor of ``step``.

        One pass for each shift between places of a pass, so memory is that of one.
        """
        n, m = ((side - self.side) // stride + 1 for side in image.shape[2:])
        every = self.step // stride
        answers = image.new_empty(len(image), 1, n, m)
        for row in range(min(every, n)):
            for column in range(min(every, m)):
                answers[:, :, row::every, column::every] = self(image[:, :, row * stride :, column * stride :])
        return answers


def halvings(side: int) -> int:
    """Layers with stride 2 for a patch of that side: 3 for 32 px."""
    return (side // LEAST).bit_length() - 1


def check_side(side: int) -> None:
    """Raises ConfigError unless the side is a power of two that leaves the generator something to start from."""
    if side < 2 * LEAST or side & (side - 1):
        near = max(2 * LEAST, 1 << side.bit_length() - 1) if side > 0 else 32
        raise ConfigError(f"patches of {side} pixels are no power of two from {2 * LEAST} on", hint=f"use {near} or 32")
