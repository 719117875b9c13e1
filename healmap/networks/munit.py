"""Networks of MUNIT's kind (Huang et al., ECCV 2018), from which UNIT's released program, ACL-GAN and Council GAN are built.

An image of width w becomes a content code (N, 4 w, H/4, W/4), the code becomes an image again, and where a method has styles
they set the decoder's instance norms. All norms are those of the image itself. No activation at the end: the method decides
what the output means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .cyclegan import reflect
from .norm import instance_norm
from .start import normal_start

Padding = Literal["reflect", "zeros"]


class Conv(nn.Conv2d):
    """Convolution that divides height and width by its stride; the border is continued by mirroring or by zeros."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, padding: Padding = "reflect") -> None:
        border = (kernel - 1) // 2
        self.mirrored = border if padding == "reflect" else 0
        super().__init__(channels, out, kernel, stride=stride, padding=border - self.mirrored)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(reflect(x, self.mirrored) if self.mirrored else x)


def adain(x: Tensor, style: Tensor | None, *, relu: bool = False) -> Tensor:
    """Adaptive instance norm (Huang and Belongie, ICCV 2017, eq. 8): γ (x - mean) / std + β, then ReLU if asked.

    x: (N, C, H, W). style: (N, 2 C), β before γ; None: plain instance norm.
    """
    if style is None:
        return instance_norm(x, relu=relu)
    beta, gamma = style[:, :, None, None].chunk(2, dim=1)
    y = instance_norm(x) * gamma + beta
    return F.relu(y) if relu else y


class ResidualBlock(nn.Module):
    """x + AdaIN(Conv(ReLU(AdaIN(Conv(x))))), no activation after the sum; without styles plain instance norms."""

    def __init__(self, width: int, padding: Padding = "reflect") -> None:
        super().__init__()
        self.first, self.second = (Conv(width, width, 3, padding=padding) for _ in range(2))

    def forward(self, x: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        return x + adain(self.second(adain(self.first(x), first, relu=True)), second)


class ContentEncoder(nn.Module):
    """7 x 7, two halvings, residual blocks: (N, channels, H, W), sides multiples of 4 -> (N, 4 width, H/4, W/4)."""

    def __init__(self, channels: int, *, width: int = 64, blocks: int = 4, padding: Padding = "reflect") -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            [
                Conv(channels, w, 7, padding=padding),
                Conv(w, 2 * w, 4, stride=2, padding=padding),
                Conv(2 * w, 4 * w, 4, stride=2, padding=padding),
            ]
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * w, padding) for _ in range(blocks)))
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.down:
            x = instance_norm(conv(x), relu=True)
        return self.blocks(x)


class StyleEncoder(nn.Module):
    """7 x 7, four halvings, mean over places, 1 x 1: (N, channels, H, W), sides at least 16 -> (N, style). No norm."""

    def __init__(self, channels: int, style: int, *, width: int = 64, padding: Padding = "reflect") -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width, 4 * width, 4 * width]
        halvings = (Conv(i, o, 4, stride=2, padding=padding) for i, o in pairwise(w))
        self.convs = nn.ModuleList([Conv(channels, width, 7, padding=padding), *halvings])
        self.last = nn.Linear(4 * width, style)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.last(x.mean(dim=(2, 3)))


class Decoder(nn.Module):
    """Residual blocks, two doublings of nearest neighbours and 5 x 5 with layer norm, 7 x 7. MUNIT's; UNIT's without styles.

    Args:
        out: output channels.
        styled: channels of the layers that a style sets, in order: for who makes the styles.
    """

    def __init__(self, out: int, *, width: int = 64, blocks: int = 4, padding: Padding = "reflect") -> None:
        super().__init__()
        w = width
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, padding) for _ in range(blocks))
        self.convs = nn.ModuleList([Conv(4 * w, 2 * w, 5, padding=padding), Conv(2 * w, w, 5, padding=padding)])
        self.norms = nn.ModuleList([nn.GroupNorm(1, 2 * w), nn.GroupNorm(1, w)])
        self.last = Conv(w, out, 7, padding=padding)
        self.styled = [4 * w] * 2 * blocks
        kaiming(self)

    def forward(self, h: Tensor, style: Tensor | None = None) -> Tensor:
        """h: (N, 4 width, H/4, W/4), style: (N, 2 sum(styled)) or None -> (N, out, H, W), unbounded."""
        styles = divide(style, self.styled)
        for block in self.blocks:
            h = block(h, next(styles), next(styles))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(double(h))))
        return self.last(h)


class FineDecoder(nn.Module):
    """Council GAN's: residual blocks, two doublings with two 3 x 3 each, three 1 x 1. Styles for all but the 1 x 1."""

    def __init__(self, out: int, *, width: int = 64, blocks: int = 5, padding: Padding = "zeros") -> None:
        super().__init__()
        w = width
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, padding) for _ in range(blocks))
        channels = [4 * w, 2 * w, 2 * w, w, w]
        self.convs = nn.ModuleList(Conv(i, o, 3, padding=padding) for i, o in pairwise(channels))
        self.mix = nn.ModuleList([Conv(w, w, 1), Conv(w, w, 1)])
        self.last = Conv(w, out, 1)
        self.styled = [4 * w] * 2 * blocks + channels[1:]
        kaiming(self)

    def forward(self, h: Tensor, style: Tensor | None = None) -> Tensor:
        """h: (N, 4 width, H/4, W/4), style: (N, 2 sum(styled)) or None -> (N, out, H, W), unbounded."""
        styles = divide(style, self.styled)
        for block in self.blocks:
            h = block(h, next(styles), next(styles))
        for i, conv in enumerate(self.convs):
            h = adain(conv(double(h) if i % 2 == 0 else h), next(styles), relu=True)
        for conv in self.mix:
            h = F.relu(conv(h))
        return self.last(h)


class StyledGenerator(nn.Module):
    """Content encoder, decoder, and the small network that turns a style into the decoder's norms.

    Args:
        style: numbers in a style.
        decoder: what makes an image of a content code; its ``styled`` names the layers.
        hidden: width of the style's network (published: 256).
    """

    def __init__(self, content: ContentEncoder, decoder: Decoder | FineDecoder, style: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.content, self.decoder = content, decoder
        self.mlp = nn.Sequential(
            nn.Linear(style, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * sum(decoder.styled)),
        )
        kaiming(self.mlp)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (N, channels, H, W), style: (N, style) -> (N, out, H, W), unbounded."""
        return self.decoder(self.content(x), self.mlp(style))


class CoupledAutoencoders(nn.Module):
    """UNIT's encoders and decoders of two domains, 0 and 1, with one space of codes between them.

    shared: residual blocks that the domains have in common, the encoders' last and the decoders' first (released: 0,
    paper: 1); they are counted in ``blocks``.
    """

    def __init__(self, channels: int, *, width: int = 64, blocks: int = 4, shared: int = 0) -> None:
        super().__init__()
        own = blocks - shared
        self.encoders = nn.ModuleList(ContentEncoder(channels, width=width, blocks=own) for _ in range(2))
        self.decoders = nn.ModuleList(Decoder(channels, width=width, blocks=own) for _ in range(2))
        self.shared_end, self.shared_start = (
            nn.Sequential(*(ResidualBlock(4 * width) for _ in range(shared))) for _ in range(2)
        )
        kaiming(self.shared_end)
        kaiming(self.shared_start)

    def encode(self, x: Tensor, domain: int) -> Tensor:
        """(N, channels, H, W) -> mean of the code (N, 4 width, H/4, W/4)."""
        return self.shared_end(self.encoders[domain](x))

    def decode(self, z: Tensor, domain: int) -> Tensor:
        """(N, 4 width, H/4, W/4) -> (N, channels, H, W), unbounded."""
        return self.decoders[domain](self.shared_start(z))


class PatchDiscriminator(nn.Module):
    """Stride-2 convolutions and a 1 x 1 head, no norm: (N, channels, H, W) -> (N, 1, H / 2**layers, W / 2**layers).

    council: Council GAN's second kind: the first layer keeps the size, and a further 1 x 1 stands before the head.
    """

    def __init__(
        self, channels: int, *, width: int = 64, layers: int = 4, padding: Padding = "reflect", council: bool = False
    ) -> None:
        super().__init__()
        w = [channels, *(width << i for i in range(layers))]
        self.convs = nn.ModuleList(Conv(i, o, 4, stride=2, padding=padding) for i, o in pairwise(w))
        if council:
            self.convs[0] = Conv(channels, width, 3, padding=padding)
        heads = [nn.Conv2d(w[-1], 1, 1)]
        self.head = nn.Sequential(*([nn.Conv2d(w[-1], w[-1], 1), *heads] if council else heads))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.head(x)


class MultiScaleDiscriminator(nn.Module):
    """The same patch discriminator, with weights of its own, on the image and on the image halved again and again.

    Args:
        scales: how many sizes (published: 3; Council GAN: 2).
        layers: layers of each (published: 4).
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        layers: int = 4,
        scales: int = 3,
        padding: Padding = "reflect",
        council: bool = False,
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(channels, width=width, layers=layers, padding=padding, council=council) for _ in range(scales)
        )
        normal_start(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, channels, H, W) -> one patch map (N, 1, h, w) per scale, unbounded."""
        maps = []
        for i, scale in enumerate(self.scales):
            if i:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            maps.append(scale(x))
        return maps


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def divide(style: Tensor | None, channels: Sequence[int]) -> Iterator[Tensor | None]:
    """A style's share (N, 2 C) for each layer of C channels, in order; None for each where there is no style."""
    if style is None:
        return iter([None] * len(channels))
    return iter(style.split([2 * c for c in channels], dim=1))


def kaiming(module: nn.Module) -> None:
    """Weights of all convolutions and matrices as He et al. 2015 for ReLU, biases zero: the released programs' start."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def check_sizes(height: int, width: int, *, layers: int, scales: int) -> None:
    """Raises ConfigError unless the encoders (multiples of 4, at least 16) and the discriminator can take the size.

    The smallest scale must still have two pixels for its last halving: a single one cannot be mirrored.
    """
    halvings = layers + scales - 1
    least = max(16, 1 << halvings)
    for name, side in (("height", height), ("width", width)):
        if side % 4 or side < 16:
            raise ConfigError(
                f"image {name} {side} does not fit the encoder, which halves it twice",
                hint=f"use a multiple of 4 from 16 on, for example {max(least, round(side / 4) * 4)}",
            )
        if side < least:
            most = side.bit_length() - 1
            raise ConfigError(
                f"image {name} {side} is too small for a discriminator of {scales} scales that halves each {layers} times",
                hint=f"use at least {least} pixels, or critic_layers + scales of at most {most + 1}",
            )
