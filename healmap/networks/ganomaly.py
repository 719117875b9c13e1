"""GANomaly's networks (Akcay et al., ACCV 2018): DCGAN's convolutions as encoder, decoder, second encoder and discriminator."""

from __future__ import annotations

from torch import Tensor, nn

from .batchnorm import BatchNorm, Statistics
from .start import normal_start

SLOPE, SPREAD = 0.2, 0.02


class Encoder(nn.Module):
    """Halvings to 4 x 4 with twice the channels each, then one convolution over all that is left. No biases.

    Args:
        out: numbers that come out (published: 100; 1 as discriminator).
        halvings: from :func:`halvings.halvings`.
        width: channels of the first layer (published: 64).
        widest: most channels of a layer; 0: no limit, as published.
    """

    def __init__(
        self, channels: int, out: int, *, halvings: int, width: int = 64, widest: int = 0, statistics: Statistics = "stored"
    ) -> None:
        super().__init__()
        w = widths(halvings, width, widest)
        layers: list[nn.Module] = []
        for given, made in zip([channels, *w], w, strict=False):
            layers += [nn.Conv2d(given, made, 4, stride=2, padding=1, bias=False)]
            layers += [BatchNorm(made, statistics)] if len(layers) > 1 else []
            layers += [nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(w[-1], out, 4, bias=False)
        normal_start(self, SPREAD, norms=(nn.BatchNorm2d,))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, channels, S, S) -> what the last convolution makes, (N, out), and what it is given, (N, w, 4, 4)."""
        features = self.body(x)
        return self.last(features).flatten(1), features


class Decoder(nn.Module):
    """The encoder's layers the other way: (N, latent) -> (N, channels, S, S) in [-1, 1]."""

    def __init__(
        self, channels: int, latent: int, *, halvings: int, width: int = 64, widest: int = 0, statistics: Statistics = "stored"
    ) -> None:
        super().__init__()
        w = widths(halvings, width, widest)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, w[0], 4, bias=False)]
        for given, made in zip(w, [*w[1:], channels], strict=True):
            up = nn.ConvTranspose2d(given, made, 4, stride=2, padding=1, bias=False)
            layers += [BatchNorm(given, statistics), nn.ReLU(inplace=True), up]
        self.body = nn.Sequential(*layers, nn.Tanh())
        normal_start(self, SPREAD, norms=(nn.BatchNorm2d,))

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z[:, :, None, None])


class Generator(nn.Module):
    """Encoder E1, decoder De and encoder E2, one after the other. Arguments as :class:`Encoder`'s."""

    def __init__(
        self, channels: int, latent: int, *, halvings: int, width: int = 64, widest: int = 0, statistics: Statistics = "stored"
    ) -> None:
        super().__init__()
        self.E1 = Encoder(channels, latent, halvings=halvings, width=width, widest=widest, statistics=statistics)
        self.De = Decoder(channels, latent, halvings=halvings, width=width, widest=widest, statistics=statistics)
        self.E2 = Encoder(channels, latent, halvings=halvings, width=width, widest=widest, statistics=statistics)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x -> z (N, latent), x̂ as x in [-1, 1], ẑ (N, latent)."""
        z, _ = self.E1(x)
        x_hat = self.De(z)
        return z, x_hat, self.E2(x_hat)[0]


def widths(halvings: int, width: int, widest: int) -> list[int]:
    """Channels after each halving."""
    return [min(width << k, widest) if widest else width << k for k in range(halvings)]
