"""Denoising autoencoder with coarse noise (Kascenas, Pugeault and O'Neil, MIDL 2022).

A U-Net learns to take smooth, patchy noise away from healthy images. A lesion looks to it like such noise, and is taken away
likewise. No bottleneck is needed: skip connections give fine detail back, which keeps the healthy part's error small.

Symbols: x image, v = (x + 1) / 2 its intensities in [0, 1], H its body, n noise, f U-Net.

    noise:  n = shift( upsample( N(0, 0.2²) on 16 x 16 points ) )
    input:  v' = v + H n
    loss:   H (f(v') - v)², mean over all pixels
    map:    median( eroded H · |v - f(v)| ), mean over channels

How we differ. From the authors' program: each image's noise is shifted by itself, not the batch's as a whole; the learning rate
follows their cosine, which goes up and down, from step to step and not from epoch to epoch; images and reconstructions are
clipped at white; beyond the image's border there may be body.
``body="auto"`` finds the body where the background is not exactly black. The score is ours: the paper judges pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses.precision import at_least_float32
from ..networks.autoencoder import DenoisingUNet
from ..networks.unet import check_size
from ..types import Spec
from .base import Losses, Phase
from .checks import require_positive
from .optim import adam
from .reconstruction import Body, Erosion, Reconstruction, ReconstructionConfig, body, image_of, unit


def coarse_noise(like: Tensor, points: int, sigma: float) -> Tensor:
    """n: normal numbers of deviation ``sigma`` on points x points places, interpolated, shifted around the image by chance.

    like: (N, C, H, W), whose shape and device are taken. Returns float32, independent between images and channels. Between the
    places interpolation averages, down to sigma / 2 in the middle of four.
    """
    n, c, height, width = like.shape
    grid = torch.randn(n, c, points, points, device=like.device) * sigma
    noise = F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)
    rows = (torch.arange(height, device=like.device) + torch.randint(height, (n, 1), device=like.device)) % height
    columns = (torch.arange(width, device=like.device) + torch.randint(width, (n, 1), device=like.device)) % width
    index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1)  # (N, 1, H W)
    return noise.flatten(2).gather(2, index.expand(-1, c, -1)).view_as(noise)


class DenoisingAutoencoder(Reconstruction):
    title = "Denoising autoencoder with coarse noise (Kascenas et al., MIDL 2022)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ReconstructionConfig):
        """Defaults are the authors' program's."""

        steps: int = 67_200  # authors' program: 2,100 epochs of 32 batches
        lr: float = 1e-4  # authors' program
        betas: tuple[float, float] = (0.9, 0.999)  # authors' program: Adam's own, with AMSGrad
        weight_decay: float = 1e-5  # authors' program, added to the gradient
        halves: int = 21  # authors' program: half waves of the cosine, 100 epochs each; odd, so that the last goes to zero
        width: int = 64  # authors' program: channels at full resolution
        levels: int = 3  # authors' program: how often the image is halved
        noise_points: int = 16  # paper: along each side of the image
        noise_sigma: float = 0.2  # paper, of the [0, 1] range
        body: Body = "threshold"  # authors' program
        erode: int = 2  # authors' program: squares of 5 x 5, of which 95 % are body
        erosion: Erosion = "square"
        median: int = 5  # authors' program

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "width", "levels", "noise_sigma")
            if self.noise_points < 2:
                raise ConfigError(f"noise_points {self.noise_points} is too few", hint="published: 16")
            if self.halves < 1 or self.halves % 2 == 0:
                raise ConfigError(f"halves {self.halves} is not an odd number", hint="1 falls to zero once; 21 is published")
            if self.weight_decay < 0:
                raise ConfigError("weight_decay is negative", hint="published: 1e-5")

    config: DenoisingAutoencoder.Config

    def __init__(self, config: DenoisingAutoencoder.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec.height, spec.width, 2**config.levels, config.levels)
        if config.noise_points > min(spec.height, spec.width):
            raise ConfigError(f"noise_points {config.noise_points} are more than pixels", hint="published: 16 for 128 pixels")
        self.net = DenoisingUNet(spec.channels, width=config.width, levels=config.levels)

    def loss(self, x: Tensor) -> Losses:
        v, inside = unit(x), body(x, self.config.body)
        noisy = v + coarse_noise(x, self.config.noise_points, self.config.noise_sigma) * inside
        return Losses(l2=(at_least_float32(self.net(noisy)) - v).square().mul(inside).mean())

    def lr_scale(self, k: int, total: int) -> float:
        """Half waves of a cosine between 1 and 0, the last one ending at zero."""
        return (1 + math.cos(math.pi * self.config.halves * k / total)) / 2

    def phases(self) -> list[Phase]:
        cfg = self.config
        weights = self.net.parameters()
        amsgrad = adam(weights, lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, amsgrad=True)
        return [Phase(name="denoise", step=self.step, steps=cfg.steps, optimisers={"net": amsgrad}, lr_scale=self.lr_scale)]

    def heal(self, image: Tensor) -> Tensor:
        """The background is left as it is: nothing was learnt there."""
        r = image_of(self.net(unit(image)).to(image.dtype))
        return torch.where(body(image, self.config.body), r, image)

    @classmethod
    def tiny(cls) -> tuple[DenoisingAutoencoder.Config, Spec]:
        return cls.Config(steps=20, width=8, levels=2, noise_points=4), Spec(height=32, width=32)
