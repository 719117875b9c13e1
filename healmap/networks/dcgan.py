"""CoGAN's coupled networks (Liu and Tuzel, NeurIPS 2016): two small generators and two small discriminators that share layers.

The layers that know what is in a picture are shared, the generators' first and the discriminators' last; those that know how
it looks are each domain's own. Widths and kernels are those of the authors' program for digits and edges at 28 px; from there
the same layers reach any size.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError


class CoupledGenerators(nn.Module):
    """A latent vector to one image per domain. Batch norm: statistics of the batch while it trains, stored ones afterwards.

    Args:
        channels: image channels.
        size: (H, W) of the images.
        latent: numbers in z (published: 100).
        width: channels before the last layer (published: 128); doubled by each layer towards z.
        layers: doublings (published: 3).
    """

    def __init__(self, channels: int, size: tuple[int, int], *, latent: int = 100, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        w = [width << (layers - i) for i in range(layers + 1)]
        sides = grow(size, layers)
        self.first = nn.ConvTranspose2d(latent, w[0], sides[0])
        self.doublings = nn.ModuleList(
            # 3 x 3, stride 2: n pixels become 2 n - 1, or 2 n where the next size is even
            nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, output_padding=(to[0] - 2 * of[0] + 1, to[1] - 2 * of[1] + 1))
            for i, o, of, to in zip(w[:-1], w[1:], sides[:-1], sides[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c in w)
        self.slopes = nn.ModuleList(nn.PReLU() for _ in w)
        self.last = nn.ModuleList(nn.ConvTranspose2d(width, channels, 6, padding=1) for _ in range(2))  # n + 3 pixels

    def shared(self, z: Tensor) -> Tensor:
        """z: (N, latent) -> what both domains' images are made of, (N, width, H - 3, W - 3)."""
        h = self.slopes[0](self.norms[0](self.first(z[:, :, None, None])))
        for conv, norm, slope in zip(self.doublings, self.norms[1:], self.slopes[1:], strict=True):
            h = slope(norm(conv(h)))
        return h

    def forward(self, z: Tensor, domain: int) -> Tensor:
        """z: (N, latent) -> (N, channels, H, W), unbounded."""
        return self.last[domain](self.shared(z))


class CoupledDiscriminators(nn.Module):
    """Images of one of two domains to a logit: 5 x 5 convolutions with max pooling, one over all that is left, a head of two.

    widths: channels of the layers (published: 20, 50, 500); all but the last halve the image. The first is each domain's own.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, widths: tuple[int, ...] = (20, 50, 500)) -> None:
        super().__init__()
        check_sizes(*size, layers=0, halvings=len(widths) - 1)
        self.first = nn.ModuleList(nn.Conv2d(channels, widths[0], 5) for _ in range(2))
        self.halvings = nn.ModuleList(nn.Conv2d(i, o, 5) for i, o in pairwise(widths[:-1]))
        rest = (left(size[0], len(widths) - 1), left(size[1], len(widths) - 1))
        self.whole = nn.Conv2d(widths[-2], widths[-1], rest)
        self.slope = nn.PReLU()
        self.head = nn.Linear(widths[-1], 2)

    def forward(self, x: Tensor, domain: int) -> Tensor:
        """(N, channels, H, W) -> (N, 1): logit of "real", the difference of the head's two."""
        h = F.max_pool2d(self.first[domain](x), 2)
        for conv in self.halvings:
            h = F.max_pool2d(conv(h), 2)
        fake, real = self.head(self.slope(self.whole(h)).flatten(1)).split(1, dim=1)
        return real - fake


def grow(size: tuple[int, int], layers: int) -> list[tuple[int, int]]:
    """Sizes from the first map to the one before the last layer, which adds 3: 28 is 4, 7, 13, 25 with three doublings."""
    sides = [(size[0] - 3, size[1] - 3)]
    for _ in range(layers):
        height, width = sides[0]
        sides.insert(0, ((height + 1) // 2, (width + 1) // 2))
    return sides


def left(side: int, halvings: int) -> int:
    """Pixels a side after so many 5 x 5 convolutions without border, each with pooling."""
    for _ in range(halvings):
        side = (side - 4) // 2
    return side


def check_sizes(height: int, width: int, *, layers: int, halvings: int) -> None:
    """Raises ConfigError unless the generators start from at least 2 x 2 and the discriminators keep at least one pixel."""
    least = next(side for side in range(4, 1 << 20) if left(side, halvings) >= 1 and grow((side, side), layers)[0][0] >= 2)
    for name, side in (("height", height), ("width", width)):
        if side < least:
            raise ConfigError(
                f"image {name} {side} is too small for {layers} doublings and {halvings} halvings",
                hint=f"use at least {least} pixels, or fewer layers and critic_widths",
            )
