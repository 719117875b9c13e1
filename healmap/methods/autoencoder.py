"""Plain autoencoder: how well can a network give an image back at all? And Baur et al.'s, whose bottleneck makes it a detector.

    network="stargan"  the generator of the StarGAN family without label planes. Its code is sixteen times as large as a grey
                       image, so it can learn to copy, lesions included: a measuring stick, no detector. Fixed-Point GAN
                       (section 4.1, Table 3) takes its L1 error as the floor of what any translation into the same domain
                       can reach. With score="mean" an image's score times 255 is that error in grey levels.
    network="unified"  the autoencoder of Baur et al., Medical Image Analysis 2021: a code of 128 numbers, as in the VAE.

Symbols: x image in [-1, 1], r = f(x).    loss:  |x - r|, mean over pixels

How we differ. Fixed-Point GAN says no more than "dedicated autoencoder": loss and schedule are ours, and its error of
0.11 +- 0.09 is in a unit that it does not name. Baur et al. sum over the pixels where we take the mean, which Adam does not
notice, and stop by their validation loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.autoencoder import UnifiedAutoencoder
from ..networks.stargan import Generator, check_sizes
from ..types import Spec
from .base import Losses
from .checks import require_positive
from .reconstruction import Reconstruction, ReconstructionConfig, unit

WIDTHS = {"stargan": 64, "unified": 32}  # StarGAN's code; Baur et al.


class Autoencoder(Reconstruction):
    title = "Plain autoencoder (measuring stick of Fixed-Point GAN; bottlenecked: Baur et al. 2021)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ReconstructionConfig):
        network: Literal["stargan", "unified"] = "stargan"
        steps: int = 200_000  # the generator's own in Fixed-Point GAN's appendix
        lr: float = 1e-4  # Fixed-Point GAN's; Baur et al.'s program has the same
        betas: tuple[float, float] = (0.5, 0.999)  # StarGAN's; Baur et al.'s program has the same
        width: int | None = None  # channels of the first layer; None: the network's own, see ``WIDTHS``
        blocks: int = 6  # StarGAN's code: residual blocks; stargan only
        code: int = 128  # Baur et al.; unified only
        dropout: float = 0.1  # Baur et al.'s program: 0.1 or 0.2; unified only

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "blocks", "code", *(["width"] if self.width is not None else []))
            if self.network == "unified" and self.width == 1:
                raise ConfigError("width 1 leaves nothing for the bottleneck", hint="it has width / 2 channels; use at least 2")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout {self.dropout} is no share below 1", hint="published: 0.1 or 0.2")

    config: Autoencoder.Config

    def __init__(self, config: Autoencoder.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        width = WIDTHS[config.network] if config.width is None else config.width
        if config.network == "unified":
            size = (spec.height, spec.width)
            self.net = UnifiedAutoencoder(spec.channels, size, width=width, code=config.code, dropout=config.dropout)
            return
        check_sizes(spec.height, spec.width, 1, whole=False)  # a critic of one layer would take any: there is none
        self.net = Generator(spec.channels, 0, spec.channels, width=width, blocks=config.blocks)

    def reconstruct(self, x: Tensor) -> Tensor:
        """r: (N, C, H, W) in [-1, 1] -> the same; the unified network's may lie a little outside."""
        if self.config.network == "unified":
            return 2 * self.net(unit(x)).to(x.dtype) - 1  # it sees intensities in [0, 1]
        return torch.tanh(self.net(x).to(x.dtype))

    def loss(self, x: Tensor) -> Losses:
        return Losses(l1=l1(x, at_least_float32(self.reconstruct(x))))

    def heal(self, image: Tensor) -> Tensor:
        return self.reconstruct(image).clamp(-1, 1)

    @classmethod
    def tiny(cls) -> tuple[Autoencoder.Config, Spec]:
        return cls.Config(steps=20, width=4, blocks=1), Spec(height=32, width=32)
