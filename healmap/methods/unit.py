"""UNIT (Liu, Breuel and Kautz, NeurIPS 2017): two domains' variational autoencoders with one space of codes between them.

An image is encoded in its own domain and decoded in the other. Autoencoding, translation judged by a discriminator, and the way
there and back, also with its codes near zero, hold the space together.

Symbols: a diseased image (set A), b healthy image (set B), E encoder, G decoder, mu the code's mean, n noise from N(0, 1),
D discriminators on three sizes of the image.

How we differ. From the paper: encoders and decoders share nothing, as in the authors' second program; ``share_last`` shares
the encoders' last and the decoders' first residual block, which the paper does. From that program: D and G look at the
same translations, which are made once; instance statistics are always those of the image. The map and the score are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.munit import CoupledAutoencoders, check_sizes
from ..types import Batch, Spec
from .base import Losses, Optimisers, Reach
from .comparators import MunitConfig, TwoSetsGAN, by_target, discriminator, judged, parts, require_not_negative

B, A = 0, 1  # domains: healthy, diseased


class Translation(NamedTuple):
    """Images of one step; ab is a decoded as b. mu_a, mu_b: their codes' means."""

    aa: Tensor
    ab: Tensor
    ba: Tensor
    bb: Tensor
    mu_a: Tensor
    mu_b: Tensor


class UNIT(TwoSetsGAN):
    title = "UNIT (Liu, Breuel and Kautz, NeurIPS 2017)"
    reaches: ClassVar[Reach] = "all"

    @dataclass(frozen=True, kw_only=True)
    class Config(MunitConfig):
        """Defaults are the authors' second program's."""

        share_last: bool = False  # authors' program; the paper shares
        lambda_gan: float = 1.0  # authors' program
        lambda_rec: float = 10.0  # authors' program
        lambda_kl: float = 0.01  # authors' program
        lambda_cyc: float = 10.0  # authors' program
        lambda_kl_cyc: float = 0.01  # authors' program

        def __post_init__(self) -> None:
            super().__post_init__()
            require_not_negative(self, "lambda_gan", "lambda_rec", "lambda_kl", "lambda_cyc", "lambda_kl_cyc")

    config: UNIT.Config

    def __init__(self, config: UNIT.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        cfg, channels = config, spec.channels
        check_sizes(spec.height, spec.width, layers=cfg.critic_layers, scales=cfg.scales)
        self.G = CoupledAutoencoders(channels, width=cfg.width, blocks=cfg.blocks, shared=int(cfg.share_last))
        self.D = nn.ModuleList(discriminator(cfg, channels) for _ in (B, A))

    # Equations

    def decode(self, z: Tensor, domain: int, like: Tensor) -> Tensor:
        return torch.tanh(self.G.decode(z, domain).to(like.dtype))

    def translate(self, a: Tensor, b: Tensor) -> Translation:
        """Both images in both domains; each decoder sees both codes in one pass, instance norm keeps them apart."""
        mu_a, mu_b = self.G.encode(a, A), self.G.encode(b, B)
        z = torch.cat([noisy(mu_a), noisy(mu_b)])
        sizes = [len(a), len(b)]
        aa, ba = self.decode(z, A, a).split(sizes)
        ab, bb = self.decode(z, B, a).split(sizes)
        return Translation(aa, ab, ba, bb, mu_a, mu_b)

    def critic_loss(self, a: Tensor, b: Tensor, t: Translation) -> Losses:
        losses = Losses()
        for name, domain, x, fake in (("healthy", B, b, t.ab.detach()), ("diseased", A, a, t.ba.detach())):
            real, made = parts(self.D[domain](torch.cat([x, fake])), len(x), len(fake))
            losses[name] = self.config.lambda_gan * (judged(real, 1) + judged(made, 0))
        return losses

    def generator_loss(self, a: Tensor, b: Tensor, t: Translation) -> Losses:
        cfg = self.config
        mu_ab, mu_ba = self.G.encode(t.ab, B), self.G.encode(t.ba, A)
        aba, bab = self.decode(noisy(mu_ab), A, a), self.decode(noisy(mu_ba), B, b)
        return Losses(
            adv=cfg.lambda_gan * (judged(self.D[B](t.ab), 1) + judged(self.D[A](t.ba), 1)),
            rec=cfg.lambda_rec * (l1(t.aa, a) + l1(t.bb, b)),
            kl=cfg.lambda_kl * (divergence(t.mu_a) + divergence(t.mu_b)),
            cyc=cfg.lambda_cyc * (l1(aba, a) + l1(bab, b)),
            kl_cyc=cfg.lambda_kl_cyc * (divergence(mu_ab) + divergence(mu_ba)),
        )

    # Training and inference

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        t = self.translate(a, b)  # G stands still while D moves, so one translation serves both updates
        losses = {"D": self.critic_loss(a, b, t)}
        optimisers.descend("D", losses["D"].total)
        losses["G"] = self.generator_loss(a, b, t)
        optimisers.descend("G", losses["G"].total)
        return losses

    def heal(self, image: Tensor) -> Tensor:
        """G_B(mu_A(image)), without noise."""
        return self.decode(self.G.encode(image, A), B, image)

    def make_ill(self, image: Tensor) -> Tensor:
        """G_A(mu_B(image)), without noise."""
        return self.decode(self.G.encode(image, B), A, image)

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        return by_target(image, label, self.heal, self.make_ill)

    @classmethod
    def tiny(cls) -> tuple[UNIT.Config, Spec]:
        config = cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3, scales=2)
        return config, Spec(height=32, width=32)


def noisy(mu: Tensor) -> Tensor:
    """A draw from N(mu, 1), the code's distribution."""
    return mu + torch.randn_like(mu)


def divergence(mu: Tensor) -> Tensor:
    """KL(N(mu, 1) || N(0, 1)) up to its factor 1/2, mean over the code's numbers: E[mu²], as the authors' program has it."""
    return at_least_float32(mu).square().mean()
