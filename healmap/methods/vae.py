"""VAE (Baur et al., Medical Image Analysis 2021): a variational autoencoder of healthy images, in their unified architecture.

An image passes through a code of 128 numbers, of which the healthy ones fill a normal distribution. What the code has no word
for is missing from the reconstruction.

Symbols: x image, v = (x + 1) / 2 its intensities in [0, 1], z code, mu and sigma its mean and deviation, e from N(0, 1).

How we differ. From the paper: a fixed number of steps instead of stopping after five epochs without a better validation loss.
From the authors' program: its norms are never told that they train, so they scale and do not normalise (``norm="scale"``); ours
are left out, as in the paper's figures. It draws z at test time as well (``samples=1``); ours is mu, so the answer does not
depend on chance. Its priors for multiple sclerosis (bright, inside the eroded brain, median) are settings, all off. The score
is ours: the paper judges pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.precision import at_least_float32
from ..networks.autoencoder import Scale, UnifiedVAE
from ..types import Spec
from .base import Losses
from .checks import require_positive
from .reconstruction import Reconstruction, ReconstructionConfig, image_of, unit


def kl_divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL( N(mu, sigma²) || N(0, 1) ) = 1/2 Σ (mu² + sigma² - log sigma² - 1): sum over the code, mean over the batch.

    mu, log_sigma: (N, code). Scalar >= 0.
    """
    mu, log_sigma = at_least_float32(mu), at_least_float32(log_sigma)
    return (mu.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum(1).mean() / 2


def summed_l1(v: Tensor, r: Tensor) -> Tensor:
    """Σ |v - r| over channels and pixels, mean over the batch. v, r: (N, C, H, W), in [0, 1]. Scalar >= 0.

    A mean over the pixels would make the divergence outweigh it by their number.
    """
    return (at_least_float32(v) - at_least_float32(r)).abs().flatten(1).sum(1).mean()


class VAE(Reconstruction):
    title = "VAE (unified, Baur et al., Medical Image Analysis 2021)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ReconstructionConfig):
        """Defaults are the paper's, or else the authors' program's."""

        steps: int = 50_000  # ours; theirs: at most 1,000 epochs, until five pass without a better validation loss
        lr: float = 1e-4  # authors' program
        betas: tuple[float, float] = (0.5, 0.999)  # authors' program
        width: int = 32  # paper: channels of the first layer
        code: int = 128  # paper
        dropout: float = 0.1  # authors' program: 0.1 or 0.2
        norm: Scale = "none"  # authors on the paper's figures; "scale": their program
        lambda_kl: float = 1.0  # paper, against a sum over the pixels
        samples: int = 0  # 0: z = mu (ours); n: the mean of n reconstructions, their e the same for every image

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "width", "code")
            if self.width < 2:
                raise ConfigError("width 1 leaves nothing for the bottleneck", hint="it has width / 2 channels; use at least 2")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout {self.dropout} is no share below 1", hint="published: 0.1 or 0.2")
            if self.lambda_kl < 0 or self.samples < 0:
                raise ConfigError("lambda_kl or samples is negative", hint="lambda_kl=1 is published; samples=0 takes mu")

    config: VAE.Config
    net: UnifiedVAE

    def __init__(self, config: VAE.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        size = (spec.height, spec.width)
        self.net = UnifiedVAE(
            spec.channels, size, width=config.width, code=config.code, dropout=config.dropout, norm=config.norm
        )

    def loss(self, x: Tensor, noise: Tensor | None = None) -> Losses:
        """E Σ |v - r| + lambda KL. noise: (N, code), drawn if None."""
        v = unit(x)
        e = torch.randn(len(x), self.config.code, device=x.device) if noise is None else noise
        r, mu, log_sigma = self.net(v, e)
        return Losses(rec=summed_l1(v, r), kl=self.config.lambda_kl * kl_divergence(mu, log_sigma))

    def heal(self, image: Tensor) -> Tensor:
        v = unit(image)
        if not self.config.samples:
            return image_of(self.net(v).image.to(image.dtype))
        noise = torch.randn(self.config.samples, 1, self.config.code, generator=torch.Generator().manual_seed(0))
        drawn = [self.net(v, e).image.to(image.dtype) for e in noise.to(image.device)]
        return image_of(torch.stack(drawn).mean(0))

    @classmethod
    def tiny(cls) -> tuple[VAE.Config, Spec]:
        return cls.Config(steps=20, width=8, code=8), Spec(height=32, width=32)
