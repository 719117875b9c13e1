"""What methods share that learn to give healthy images back: one network, one loss, and what is read from image and
reconstruction. The equations stand with each method.

    map:  median( B · [x >= q] · d(x, r) ),  d = |x - r| / 2,  or max(±(x - r), 0) / 2

B is the body, eroded; q a quantile of the image. All but d = |x - r| / 2 are priors about lesions, and off unless a method's
paper has them. Each is taken of the image alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..types import Batch, Needs, Prediction, Spec
from .base import REDUCE, HealingMethod, Losses, Optimisers, Phase
from .checks import require_betas, require_positive
from .corruption import foreground
from .optim import adam

Body = Literal["all", "threshold", "auto"]
Sign = Literal["both", "bright", "dark"]
Erosion = Literal["steps", "square"]

BLACK = 0.01  # Kascenas et al., authors' code: the body is brighter, in [0, 1] and summed over the channels
ERODED = 0.95  # Kascenas et al., authors' code: of the square around a pixel of the eroded body this share is body


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How the map is read: settings that all reconstruction methods have."""

    steps: int = 50_000
    lr: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    sign: Sign = "both"  # count differences of either sign, or where the image is too bright, or too dark
    body: Body = "all"  # all: no mask; threshold: brighter than black; auto: what brighter pixels enclose
    erode: int = 0  # pixels that the body loses at its rim before it masks the map
    erosion: Erosion = "steps"  # Baur et al.: ``erode`` erosions; square: Kascenas et al.: 95 % of a square around it is body
    bright_quantile: float = 0.0  # pixels darker than this quantile of their image do not count; 0: all do
    median: int = 1  # pixels; the map is the median over such a square
    score: Literal["mean", "max"] = "mean"  # of the map; the papers define none (mean: A2B-GAN's and HealthyGAN's)

    def __post_init__(self) -> None:
        require_positive(self, "steps", "lr")
        require_betas(self)
        if self.median < 1 or self.median % 2 == 0:
            raise ConfigError(f"median {self.median} is not an odd number", hint="use 1 for none, 5 for Kascenas et al.'s")
        if self.erode < 0:
            raise ConfigError(f"erode {self.erode} is negative", hint="use 0 for none")
        if self.erode and self.body == "all":
            raise ConfigError(f"erode {self.erode} has no body to erode", hint="set body=threshold or body=auto, or erode=0")
        if not 0 <= self.bright_quantile < 1:
            raise ConfigError(f"bright_quantile {self.bright_quantile} is none", hint="use 0 for none, or for example 0.9")


class Reconstruction(HealingMethod):
    """Symbols: x image, r its reconstruction, v = (x + 1) / 2 intensities in [0, 1]."""

    needs = Needs.HEALTHY
    averaged: ClassVar[tuple[str, ...]] = ("net",)
    config: ReconstructionConfig
    net: nn.Module

    def __init__(self, config: ReconstructionConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        if config.median > min(spec.height, spec.width):
            raise ConfigError(f"median {config.median} is wider than the image", hint="use 1 for none, 5 for Kascenas et al.'s")

    @abstractmethod
    def loss(self, x: Tensor) -> Losses:
        """x: (N, C, H, W) in [-1, 1], healthy. May draw from torch's generator."""

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        losses = self.loss(next(batches).image)
        optimisers.descend("net", losses.total)
        return {"net": losses}

    def phases(self) -> list[Phase]:
        cfg = self.config
        optimiser = adam(self.net.parameters(), lr=cfg.lr, betas=cfg.betas)
        return [Phase(name="reconstruct", step=self.step, steps=cfg.steps, optimisers={"net": optimiser})]

    def anomaly_map(self, x: Tensor, r: Tensor) -> Tensor:
        """x, r: (N, C, H, W) in [-1, 1] -> (N, 1, H, W) in [0, 1]."""
        cfg = self.config
        amount = differing(x, r, cfg.sign).mean(dim=1, keepdim=True) / 2
        if cfg.body != "all":
            amount = amount * eroded(body(x, cfg.body), cfg.erode, cfg.erosion)
        if cfg.bright_quantile:
            amount = amount * among_brightest(x, cfg.bright_quantile)
        return median_filter(amount, cfg.median)

    def predict(self, image: Tensor) -> Prediction:
        healed = self.heal(image)
        anomaly_map = self.anomaly_map(image, healed)
        return Prediction(REDUCE[self.config.score](anomaly_map.flatten(1)), anomaly_map, healed)


def unit(x: Tensor) -> Tensor:
    """v: intensities in [0, 1] of images in [-1, 1]."""
    return (x + 1) / 2


def image_of(v: Tensor) -> Tensor:
    """The image of reconstructed intensities, which may lie a little outside [0, 1]: in [-1, 1]."""
    return (2 * v - 1).clamp(-1, 1)


def differing(x: Tensor, r: Tensor, sign: Sign) -> Tensor:
    """|x - r|, or its part of one sign: "bright" where the image is brighter than its reconstruction. Shapes are kept."""
    if sign == "both":
        return (x - r).abs()
    return ((x - r) if sign == "bright" else (r - x)).clamp_min(0)


def body(x: Tensor, kind: Body) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, 1, H, W) bool, each image by itself."""
    if kind == "all":
        return torch.ones_like(x[:, :1], dtype=torch.bool)
    return unit(x).sum(1, keepdim=True) > BLACK if kind == "threshold" else foreground(x)


def eroded(inside: Tensor, pixels: int, erosion: Erosion) -> Tensor:
    """A body without its rim: (N, 1, H, W) bool -> the same. Beyond the image's border it may go on.

    steps: so many erosions by a pixel and its four neighbours. What is left is at least so far from all that is not body,
    counted along rows and columns. square: of the square of 2 pixels + 1 around a pixel 95 % are body, so that for 2 pixels a
    single hole is forgiven; the wider the square, the less of a rim it takes off.
    """
    if erosion == "square":
        share = F.avg_pool2d(inside.float(), 2 * pixels + 1, 1, pixels, count_include_pad=False)
        return inside & (share > ERODED)
    outside = (~inside).float()
    for _ in range(pixels):
        up_and_down, to_the_sides = F.max_pool2d(outside, (3, 1), 1, (1, 0)), F.max_pool2d(outside, (1, 3), 1, (0, 1))
        outside = torch.maximum(up_and_down, to_the_sides)
    return outside == 0


def among_brightest(x: Tensor, quantile: float) -> Tensor:
    """Where an image is at least as bright as this quantile of its pixels: (N, C, H, W) -> (N, 1, H, W) bool."""
    grey = x.float().mean(1, keepdim=True)
    return grey >= grey.flatten(1).quantile(quantile, dim=1)[:, None, None, None]


def median_filter(x: Tensor, size: int) -> Tensor:
    """Median over size x size pixels of the image continued by mirroring: (N, 1, H, W) -> the same. size: odd."""
    if size == 1:
        return x
    filtered = []
    for one in F.pad(x, (size // 2,) * 4, mode="reflect").split(1):  # one by one: each pixel takes the room of size²
        squares = one.unfold(2, size, 1).unfold(3, size, 1).flatten(-2)  # (1, 1, H, W, size²)
        # Sorted, since the median itself has no deterministic form on a GPU.
        filtered.append(squares.sort(dim=-1).values[..., size**2 // 2])
    return torch.cat(filtered)
