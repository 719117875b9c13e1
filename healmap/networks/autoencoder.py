"""Networks that give their input back: the unified (variational) autoencoder of Baur et al., Medical Image Analysis 2021, and
the U-Net of the denoising autoencoder of Kascenas et al., MIDL 2022.

Both see intensities in [0, 1] and end without an activation. Statistics, where there are any, are those of the image.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from . import winograd
from .cyclegan import reflect

Scale = Literal["none", "scale"]

GRID = 8  # Baur et al.: the code is read from 8 x 8 places
SLOPE = 0.3  # authors' code: its framework's default
DEPTH = 4  # Baur et al.: 32 to 128 channels


class Coded(NamedTuple):
    image: Tensor  # (N, C, H, W), unbounded
    mu: Tensor  # (N, code)
    log_sigma: Tensor  # (N, code)


def halvings(height: int, width: int) -> int:
    """How often the unified encoder halves the image: as long as the shorter side keeps 8 pixels.

    Of the published sizes 64, 128 and 256 that leaves 8 x 8. Raises ConfigError, with sizes that work, for sides that are too
    short or cannot be halved so often.
    """
    shorter = min(height, width)
    count = (shorter // GRID).bit_length() - 1
    for name, side in (("height", height), ("width", width)):
        if count < 1:
            raise ConfigError(f"image {name} {side} is too small for the autoencoder", hint=f"use at least {2 * GRID} pixels")
        step = 1 << count
        if side % step:
            raise ConfigError(
                f"image {name} {side} does not suit the autoencoder, which halves it {count} times",
                hint=f"use a multiple of {step}, for example {side // step * step} or {(side // step + 1) * step}",
            )
    return count


class ChannelScale(nn.Module):
    """x * weight + bias per channel: what is left of a batch norm that is never told that it trains."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class UnifiedAutoencoder(nn.Module):
    """Image -> code of 128 numbers -> image.

    Args:
        channels: image channels.
        size: (H, W), see :func:`halvings`.
        width: channels of the first layer (published: 32); the deepest have four times as many, the bottleneck half.
        code: length of the code (published: 128).
        dropout: share of the code's numbers, and of what is made from them, that training leaves out.
        norm: "scale" puts a learnt scale where the published program meant to normalise.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        width: int = 32,
        code: int = 128,
        dropout: float = 0.1,
        norm: Scale = "none",
    ) -> None:
        super().__init__()
        count = halvings(*size)
        widths = [min(width << i, DEPTH * width) for i in range(count)]  # 32, 64, 128, 128
        deep, narrow = widths[-1], width // 2
        self.grid = (narrow, size[0] >> count, size[1] >> count)
        places = narrow * self.grid[1] * self.grid[2]
        self.dropout = nn.Dropout(dropout)

        layers: list[nn.Module] = []
        for c_in, c_out in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(c_in, c_out, 5, stride=2, padding=2), *_scale(norm, c_out), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(deep, narrow, 1))
        self.mu = nn.Linear(places, code)
        self.places = nn.Linear(code, places)

        layers = [nn.Conv2d(narrow, deep, 1), *_scale(norm, deep), nn.ReLU()]
        back = [max(deep >> i, width) for i in range(count)]  # 128, 64, 32, 32
        for c_in, c_out in zip([deep, *back], back, strict=False):
            up = nn.ConvTranspose2d(c_in, c_out, 5, stride=2, padding=2, output_padding=1)
            layers += [up, *_scale(norm, c_out), nn.LeakyReLU(SLOPE)]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(back[-1], channels, 1))
        self._initialise()

    def _initialise(self) -> None:
        """As the published framework begins: without norms torch's own start lets the signal fade."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def decode(self, z: Tensor) -> Tensor:
        """(N, code) -> (N, channels, H, W), unbounded."""
        return self.decoder(self.dropout(self.places(z)).unflatten(1, self.grid))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) in [0, 1] -> the same, unbounded."""
        return self.decode(self.dropout(self.mu(self.encoder(x).flatten(1))))


class UnifiedVAE(UnifiedAutoencoder):
    """The same with a normal distribution for a code."""

    def __init__(self, channels: int, size: tuple[int, int], **settings: Any) -> None:
        """settings: as there."""
        super().__init__(channels, size, **settings)
        self.log_sigma = nn.Linear(self.mu.in_features, self.mu.out_features)
        self._initialise()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, channels, H, W) in [0, 1] -> mu, log sigma, each (N, code)."""
        h = self.encoder(x).flatten(1)
        return self.dropout(self.mu(h)), self.dropout(self.log_sigma(h))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Coded:  # type: ignore[override]
        """z = mu + exp(log sigma) noise; noise: (N, code) or (1, code) from N(0, 1), None: z = mu."""
        mu, log_sigma = self.encode(x)
        z = mu if noise is None else mu + log_sigma.exp() * noise.to(mu.dtype)
        return Coded(self.decode(z), mu, log_sigma)


def _scale(norm: Scale, channels: int) -> list[nn.Module]:
    return [ChannelScale(channels)] if norm == "scale" else []


class DenoisingUNet(nn.Module):
    """(N, channels, H, W) -> the same, unbounded: Kascenas et al.'s U-Net, with average pooling on the way down and transposed
    convolutions on the way up.

    Args:
        channels: image channels.
        width: channels at full resolution (published: 64), doubled at every level.
        levels: how often the image is halved (published: 3).
    """

    def __init__(self, channels: int, *, width: int = 64, levels: int = 3) -> None:
        super().__init__()
        widths = [width << i for i in range(levels + 1)]
        self.down = nn.ModuleList(_block(i, o) for i, o in zip([channels, *widths], widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, shallower), from the bottom up
        self.lift = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.up = nn.ModuleList(_block(2 * shallow, shallow) for _, shallow in pairs)
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(torch.cat((lift(x), skips.pop()), dim=1))
        return self.last(x)


def _block(c_in: int, c_out: int) -> nn.Sequential:
    """Twice: conv 3 x 3 - swish - group norm."""
    layers: list[nn.Module] = []
    for channels in (c_in, c_out):
        layers += [StandardisedConv(channels, c_out), nn.SiLU(), nn.GroupNorm(groups(c_out), c_out)]
    return nn.Sequential(*layers)


def groups(channels: int) -> int:
    """The middle one of the divisors: 8 groups for 64 channels, 16 for 128 and 256, 32 for 512."""
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    return divisors[len(divisors) // 2]


class StandardisedConv(nn.Conv2d):
    """Convolution 3 x 3, mirrored border, weights of zero mean and unit deviation per output channel (Qiao et al. 2019)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return winograd.conv2d(reflect(x, 1), weight, self.bias)
