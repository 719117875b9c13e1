"""ALAD's networks (Zenati et al., ICDM 2018): encoder, generator, and three discriminators of pairs, with spectral norm."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .start import CONVOLUTIONS, normal_start

SLOPE, SPREAD, DROPOUT = 0.2, 0.01, 0.2
LAYERS = (*CONVOLUTIONS, nn.Linear)  # whose weights begin at N(0, SPREAD²)
EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norm: TensorFlow's defaults, 0.99 by its own count

Joined = Literal["height", "channels"]


def spectral_norm(weight: Tensor, u: Tensor, *, keep: bool) -> Tensor:
    """W / σ(W) (Miyato et al., ICLR 2018), by one step of power iteration from u, (out,), which ``keep`` puts in its place.

    The length of u does not matter, so an average of it serves as well. Singular vectors are constants to the gradient.
    """
    with torch.autocast(weight.device.type, enabled=False):
        W = weight.flatten(1)  # (out, all others)
        with torch.no_grad():
            v = F.normalize(W.mT @ u, dim=0)
            left = F.normalize(W @ v, dim=0)
            if keep:
                u.copy_(left)
        return weight / torch.dot(left, W @ v)


class SpectralConv(nn.Conv2d):
    """A convolution by W / σ(W). ``u`` moves on while training only: predicting changes nothing."""

    u: Tensor

    def __init__(self, given: int, made: int, kernel: int, *, padding: int = 0) -> None:
        super().__init__(given, made, kernel, stride=2, padding=padding)
        self.register_buffer("u", F.normalize(torch.randn(made), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, spectral_norm(self.weight, self.u, keep=self.training), self.bias)


class SpectralLinear(nn.Linear):
    """A linear layer by W / σ(W), likewise."""

    u: Tensor

    def __init__(self, given: int, made: int) -> None:
        super().__init__(given, made)
        self.register_buffer("u", F.normalize(torch.randn(made), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, spectral_norm(self.weight, self.u, keep=self.training), self.bias)


def conv(given: int, made: int, kernel: int, *, padding: int, spectral: bool) -> nn.Conv2d:
    """Stride 2."""
    if spectral:
        return SpectralConv(given, made, kernel, padding=padding)
    return nn.Conv2d(given, made, kernel, stride=2, padding=padding)


class Halvings(nn.Sequential):
    """Convolutions with batch norm and leaky ReLU down to 4 x 4. first_normed: whether the first has a norm as well."""

    def __init__(self, channels: int, halvings: int, width: int, *, spectral: bool, first_normed: bool) -> None:
        w = widths(halvings, width)
        layers: list[nn.Module] = []
        for k, (given, made) in enumerate(zip([channels, *w[:-1]], w, strict=True)):
            layers.append(conv(given, made, 4, padding=1, spectral=spectral))  # TensorFlow's SAME border on even sides
            layers += [_norm(made)] if k or first_normed else []
            layers.append(nn.LeakyReLU(SLOPE))
        super().__init__(*layers)


class Encoder(nn.Module):
    """E: (N, channels, S, S) -> (N, latent).

    Args:
        halvings: from S to 4 x 4 (published: 3, from 32).
        width: channels of the first layer (published: 128).
        spectral: norm of all but the last layer.
    """

    def __init__(self, channels: int, latent: int, *, halvings: int, width: int = 128, spectral: bool = True) -> None:
        super().__init__()
        self.body = Halvings(channels, halvings, width, spectral=spectral, first_normed=True)
        self.last = nn.Conv2d(widths(halvings, width)[-1], latent, 4)
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x)).flatten(1)


class Generator(nn.Module):
    """G: (N, latent) -> (N, channels, S, S) in [-1, 1]: the encoder's sizes the other way."""

    def __init__(self, channels: int, latent: int, *, halvings: int, width: int = 128) -> None:
        super().__init__()
        w = widths(halvings, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, w[0], 4)]
        for given, made in zip(w, [*w[1:], channels], strict=True):
            up = nn.ConvTranspose2d(given, made, 4, stride=2, padding=1)
            layers += [_norm(given), nn.ReLU(inplace=True), up]
        self.body = nn.Sequential(*layers, nn.Tanh())
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z[:, :, None, None])


class ImageLatentCritic(nn.Module):
    """D_xz: an image and a code to the logit that the code is the image's own, (N, 1)."""

    def __init__(self, channels: int, latent: int, *, halvings: int, width: int = 128, spectral: bool = True) -> None:
        super().__init__()
        arm, joined = 4 * width, 8 * width  # published: 512, 1024
        self.image = Halvings(channels, halvings, width, spectral=spectral, first_normed=False)
        self.latent = nn.Sequential(
            *_dense(latent, arm, spectral=spectral),
            *_dense(arm, arm, spectral=spectral),
        )
        self.joined = nn.Sequential(
            *_dense(16 * widths(halvings, width)[-1] + arm, joined, spectral=spectral),
            nn.Linear(joined, 1),
        )
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.joined(torch.cat([self.image(x).flatten(1), self.latent(z)], dim=1))


class ImagesCritic(nn.Module):
    """D_xx: an image and itself, or its reconstruction.

    joined: one below the other, as published: convolutions then compare them near the seam only, the last layer everywhere;
    or in further channels.
    """

    def __init__(self, channels: int, side: int, *, width: int = 128, spectral: bool = True, joined: Joined = "height") -> None:
        super().__init__()
        self.axis = 2 if joined == "height" else 1
        first, second = width // 2, width  # published: 64, 128
        given, places = (channels, 2 * (side // 4) ** 2) if joined == "height" else (2 * channels, (side // 4) ** 2)
        # 5 x 5 with TensorFlow's SAME border on even sides: one pixel before, two after.
        self.body = nn.Sequential(
            *_wide(given, first, spectral=spectral),
            *_wide(first, second, spectral=spectral),
        )
        self.last = nn.Linear(second * places, 1)
        normal_start(self, SPREAD, layers=LAYERS)

    def features(self, x: Tensor, other: Tensor) -> Tensor:
        """f_xx: (N, 128 · 2 (S / 4)²), published: 16,384."""
        return self.body(torch.cat([x, other], dim=self.axis)).flatten(1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Logit of "itself", (N, 1)."""
        return self.last(self.features(x, other))


class LatentsCritic(nn.Module):
    """D_zz: a code and itself, or the code of its picture. Logit of "itself", (N, 1)."""

    def __init__(self, latent: int, *, width: int = 128, spectral: bool = True) -> None:
        super().__init__()
        first, second = width // 2, width // 4  # published: 64, 32
        self.body = nn.Sequential(
            *_dense(2 * latent, first, spectral=spectral),
            *_dense(first, second, spectral=spectral),
            nn.Linear(second, 1),
        )
        normal_start(self, SPREAD, layers=LAYERS)

    def forward(self, z: Tensor, other: Tensor) -> Tensor:
        return self.body(torch.cat([z, other], dim=1))


def widths(halvings: int, width: int) -> list[int]:
    """Channels after each halving: doubled to four times the first (published: 128, 256, 512), then the same."""
    return [min(width << k, 4 * width) for k in range(halvings)]


def check_width(width: int) -> None:
    """Raises ConfigError unless halves and quarters of the width are whole."""
    if width < 4 or width % 4:
        raise ConfigError(f"width {width} cannot be halved twice", hint="use a multiple of 4; published: 128")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def _dense(given: int, made: int, *, spectral: bool) -> list[nn.Module]:
    layer = SpectralLinear(given, made) if spectral else nn.Linear(given, made)
    return [layer, nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT)]


def _wide(given: int, made: int, *, spectral: bool) -> list[nn.Module]:
    layer = conv(given, made, 5, padding=0, spectral=spectral)
    return [nn.ZeroPad2d((1, 2, 1, 2)), layer, nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT)]
