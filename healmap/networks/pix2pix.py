"""U-Net and PatchGAN of pix2pix (Isola et al., CVPR 2017).

The published batch is one image, so that its batch norm is a norm over the image; here it is that for every batch, in training
and at inference. Nothing is normalised at the bottom of the U-Net, where an image may be one pixel: as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import InstanceNorm
from .stargan import Halving
from .start import normal_start

DROPPED_LEVELS = 3  # paper: the decoder's first three layers, counted from the bottom


class Generator(nn.Module):
    """U-Net of ``levels`` halvings with a skip at each, tanh at the end.

    Args:
        channels: image channels, in and out.
        width: channels of the first layer (published: 64), doubled at each level up to 8 times as many.
        levels: halvings (published: 8, for 256 px: the bottom is one pixel).
        dropout: probability in the innermost up levels (published: 0.5); the only noise, and none in ``eval()``.
    """

    def __init__(self, channels: int, *, width: int = 64, levels: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        w = [width * min(1 << level, 8) for level in range(levels)]  # 64, 128, 256, 512, 512, ...
        bottom = levels - 1
        self.down = nn.ModuleList(_down(given, w[k], norm=0 < k < bottom) for k, given in enumerate([channels, *w[:-1]]))
        # From the bottom up. What comes from below has a skip beside it, except at the bottom itself.
        self.up = nn.ModuleList(
            _up(w[k] if k == bottom else 2 * w[k], w[k - 1], dropout if bottom - k < DROPPED_LEVELS else 0.0)
            for k in range(bottom, 0, -1)
        )
        self.last = nn.ConvTranspose2d(2 * w[0], channels, 4, stride=2, padding=1)
        normal_start(self, norms=(InstanceNorm,))  # N(0, 0.02²): paper; gains: authors' code

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), H and W multiples of 2**levels -> the same in [-1, 1]."""
        skips: list[Tensor] = []
        for k, down in enumerate(self.down):
            x = down(F.leaky_relu(x, 0.2) if k else x)
            skips.append(x)
        h = F.relu(skips.pop())
        for up in self.up:
            h = torch.cat([F.relu(skips.pop()), up(h)], dim=1)
        return torch.tanh(self.last(h))


def _down(given: int, out: int, *, norm: bool) -> nn.Sequential:
    """Halving and norm; the activation is the reader's: leaky on the way down, ReLU in a skip."""
    return nn.Sequential(UnbiasedHalving(given, out), *([InstanceNorm(out)] if norm else []))


def _up(given: int, out: int, dropout: float) -> nn.Sequential:
    """Doubling, norm, ReLU, dropout."""
    doubling = nn.ConvTranspose2d(given, out, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(doubling, InstanceNorm(out, relu=True), *([nn.Dropout(dropout)] if dropout else []))


class UnbiasedHalving(Halving):
    """As most have it, since a norm follows."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__(given, out)
        self.register_parameter("bias", None)


class Critic(nn.Module):
    """PatchGAN on pairs: which of the overlapping patches show an output that belongs to its input.

    Args:
        channels: channels of input and output together.
        width: channels of the first layer (published: 64), doubled by each further one up to 8 times as many.
        layers: halvings (published: 3, so that a patch is 70 x 70 pixels).
    """

    def __init__(self, channels: int, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        w = [width * min(1 << i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [Halving(channels, w[0]), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):  # after the halvings one layer more, with stride 1
            conv = UnbiasedHalving(w[i - 1], w[i]) if i < layers else nn.Conv2d(w[i - 1], w[i], 4, padding=1, bias=False)
            main += [conv, InstanceNorm(w[i]), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*main, nn.Conv2d(w[-1], 1, 4, padding=1))
        normal_start(self, norms=(InstanceNorm,))  # N(0, 0.02²): paper; gains: authors' code

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: inputs, y: outputs, (N, C, H, W) each -> logits of the patches, (N, 1, H / 2**layers - 2, W / 2**layers - 2)."""
        return self.main(torch.cat([x, y], dim=1))


def levels_for(height: int, width: int, most: int) -> int:
    """How often height and width can be halved, at most ``most`` times."""
    return next((n for n in range(most, 0, -1) if height % (1 << n) == 0 and width % (1 << n) == 0), 0)
