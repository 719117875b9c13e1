"""Restoration (ours): a U-Net that learns from healthy images alone to undo made-up lesions.

A healthy image x gets a made-up lesion, x' = corrupt(x), in most cases; the network f sees x' and has to give x back, so it
learns what healthy anatomy looks like in that place. On an image that nothing was done to it has to change nothing. A real
lesion is then undone likewise, and the difference is the map. No critic, no diseased image, minutes of training.

Symbols: x clean image, x' corrupted image, f U-Net, d displacement (pixels), H head (foreground) of the image.

    residual:  heal(x') = x' + f(x')
    warp:      heal(x')(p) = x'(p + d(p)),  d = f(x')
    both:      heal(x')(p) = x'(p + d(p)) + r(p),  (d, r) = f(x')
    loss:      | heal(x') - x |, mean over pixels
    map:       smooth(H · |x - heal(x)| / 2)

The last layer starts at zero: before training the method heals nothing and its map is empty. In the family of denoising
autoencoders for anomaly detection (Kascenas et al., MIDL 2022, coarse noise) and foreign patch interpolation (Tan et al.,
MELBA 2022, cut-paste); the lesions, the residual and the warp are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from ..errors import ConfigError
from ..networks.unet import Norm, UNet, check_size
from ..networks.warping import warp
from ..types import Batch, Needs, Prediction, Spec
from .base import HealingMethod, Losses, Optimisers, Phase
from .corruption import Bumps, Lesions, add_lesions, deform, foreground, uniform

# A displacement of one network unit, in half sides. The largest made-up one is 0.14: outputs of about one need no long climb.
DISPLACEMENT_UNIT = 0.1


class Healed(NamedTuple):
    image: Tensor  # (N, C, H, W) in [-1, 1] up to the residual's overshoot
    displacement: Tensor | None  # (N, 2, H, W) pixels (x, y); None for the residual head


@dataclass(frozen=True, kw_only=True)
class RestorationConfig:
    """Settings of Restoration. Sources: ours; see docs/methods/restoration.md for what was measured."""

    head: Literal["residual", "warp", "both"] = "residual"
    width: int = 16  # channels at full resolution
    levels: int = 4  # how often the image is halved
    stem: int = 1  # 2: fold 2x2 pixels into channels first
    norm: Norm = "instance"
    corrupted: float = 0.7  # share of the inputs that get made-up lesions; the others teach the identity
    lesions: Lesions = field(default_factory=Lesions)  # for residual; half of the corrupted images for both
    bumps: Bumps = field(default_factory=Bumps)  # for warp; the other half for both
    jitter: tuple[float, float] = (0.8, 1.2)  # factor on the brightness, of input and target alike
    foreground: Literal["auto", "all"] = "auto"  # lesions and map inside the body, or everywhere
    steps: int = 2000
    beta: float = 0.1  # below this the loss is quadratic; 0: L1, which lingers at the identity for long
    lr: float = 1e-3
    weight_decay: float = 0.01  # AdamW's default
    warm_up: int = 50  # steps until the learning rate is full
    mirror: bool = True  # heal with the mean of f's answers to the image and to its mirror image
    smooth: int = 3  # pixels; the map is averaged over such a square
    sign: Literal["both", "bright", "dark"] = "both"  # count differences of either sign, or where the image is too ...
    score: Literal["mean", "foreground-mean", "max", "top"] = "top"  # of the map; a mean grows with the body's size
    top: float = 0.01  # share of the pixels of the body that "top" averages: the highest

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, hint: str) -> None:
            if not condition:
                raise ConfigError(what, hint=hint)

        require(self.width >= 1 and self.levels >= 1, "width and levels must be at least 1", "16 and 4 are the defaults")
        require(self.stem in (1, 2, 4), f"stem {self.stem} is not 1, 2 or 4", "1 keeps full resolution")
        require(0 <= self.corrupted <= 1, f"corrupted {self.corrupted} is no share", "use for example 0.7")
        require(0 < self.jitter[0] <= self.jitter[1], f"jitter {self.jitter} is no range", "use 1,1 for none")
        require(self.smooth >= 1 and self.smooth % 2 == 1, f"smooth {self.smooth} is not an odd number", "use 1 for none")
        require(0 < self.top <= 1, f"top {self.top} is not a share of the pixels", "use for example 0.01")


class Restoration(HealingMethod):
    needs = Needs.HEALTHY
    title = "Restoration: a U-Net that undoes made-up lesions (ours)"
    averaged = ("unet",)
    Config = RestorationConfig
    config: RestorationConfig

    def __init__(self, config: RestorationConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec.height, spec.width, config.stem * 2**config.levels, config.levels)
        outputs = {"residual": spec.channels, "warp": 2, "both": 2 + spec.channels}[config.head]
        self.unet = UNet(spec.channels, outputs, width=config.width, levels=config.levels, stem=config.stem, norm=config.norm)

    @classmethod
    def tiny(cls) -> tuple[RestorationConfig, Spec]:
        return RestorationConfig(width=8, levels=2, steps=8, warm_up=2), Spec(height=32, width=32)

    def inside(self, image: Tensor) -> Tensor:
        """H, the part of the image that lesions can be in: (N, 1, H, W) bool."""
        if self.config.foreground == "all":
            return torch.ones_like(image[:, :1], dtype=torch.bool)
        return foreground(image)

    def output(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """f(x): displacement in pixels (N, 2, H, W), residual (N, C, H, W), each if the head has it."""
        out = self.unet(x).float()
        if self.config.head == "residual":
            return None, out
        d = out[:, :2] * (DISPLACEMENT_UNIT * min(x.shape[2:]) / 2)
        return d, out[:, 2:] if self.config.head == "both" else None

    def mirrored_output(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The mean of f(x) and of the mirrored answer to the mirrored x. What is seen one way only is halved."""
        (d, r), (e, s) = self.output(x), self.output(x.flip(3))
        if d is not None and e is not None:
            e = e.flip(3)
            d = (d + torch.cat((-e[:, :1], e[:, 1:]), dim=1)) / 2  # in a mirror the x axis points back
        if r is not None and s is not None:
            r = (r + s.flip(3)) / 2
        return d, r

    def restore(self, x: Tensor, *, mirror: bool = False) -> Healed:
        """What f makes of an image, (N, C, H, W) in [-1, 1]."""
        d, r = self.mirrored_output(x) if mirror else self.output(x)
        image = x if d is None else warp(x, d)
        return Healed(image if r is None else image + r, d)

    def corrupt(self, x: Tensor) -> Tensor:
        """x' of clean images; drawn from torch's generator."""
        cfg, inside = self.config, self.inside(x)
        chosen = uniform(len(x), 0, 1, x) < cfg.corrupted
        if cfg.head == "residual":
            return add_lesions(x, inside, cfg.lesions, chosen)
        if cfg.head == "warp":
            return deform(x, inside, cfg.bumps, chosen)
        bent = uniform(len(x), 0, 1, x) < 0.5
        return deform(add_lesions(x, inside, cfg.lesions, chosen & ~bent), inside, cfg.bumps, chosen & bent)

    def loss(self, corrupted: Tensor, clean: Tensor) -> Losses:
        """| heal(x') - x |, quadratic below ``beta``."""
        return Losses(l1=F.smooth_l1_loss(self.restore(corrupted).image, clean, beta=self.config.beta))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> dict[str, Losses]:
        x = next(batches).image.float()
        with torch.no_grad():
            # Brightness counts from black: -1 stays -1.
            clean = ((x + 1) * uniform(len(x), *self.config.jitter, x) - 1).clamp(max=1)
            corrupted = self.corrupt(clean)
        losses = self.loss(corrupted, clean)
        optimisers.descend("unet", losses.total)
        return {"unet": losses}

    def lr_scale(self, k: int, total: int) -> float:
        """Rises over the warm-up, then falls in a straight line to zero at the last step."""
        warm_up = min(self.config.warm_up, total // 4)
        return min((k + 1) / (warm_up + 1), (total - k) / max(total - warm_up, 1))

    def phases(self) -> list[Phase]:
        cfg = self.config
        adamw = AdamW(self.unet.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
        return [Phase(name="restore", step=self.step, steps=cfg.steps, optimisers={"unet": adamw}, lr_scale=self.lr_scale)]

    def heal(self, image: Tensor) -> Tensor:
        """The background is left as it is: nothing was learnt there."""
        return self._heal(image, self.inside(image)).image

    def _heal(self, image: Tensor, inside: Tensor) -> Healed:
        healed = self.restore(image, mirror=self.config.mirror)
        return Healed(torch.where(inside, healed.image.clamp(-1, 1), image), healed.displacement)

    def anomaly_map(self, image: Tensor, healed: Tensor, inside: Tensor) -> Tensor:
        """smooth(H · |x - healed| / 2): (N, 1, H, W) in [0, 1]."""
        difference = image - healed
        match self.config.sign:
            case "both":
                difference = difference.abs()
            case "bright":
                difference = difference.clamp_min(0)
            case "dark":
                difference = (-difference).clamp_min(0)
        amount = difference.mean(dim=1, keepdim=True) / 2 * inside
        return F.avg_pool2d(amount, self.config.smooth, 1, self.config.smooth // 2)

    def score(self, anomaly_map: Tensor, inside: Tensor) -> Tensor:
        """(N, 1, H, W), (N, 1, H, W) -> (N,)."""
        flat, body = anomaly_map.flatten(1), inside.flatten(1)
        match self.config.score:
            case "mean":
                return flat.mean(1)
            case "max":
                return flat.amax(1)
            case "foreground-mean":
                return (flat * body).sum(1) / body.sum(1).clamp_min(1)
        # The body's size differs between images: rank all pixels, then average the first so many of each image.
        count = (body.sum(1, keepdim=True) * self.config.top).round().clamp_min(1)
        first = torch.arange(flat.shape[1], device=flat.device) < count  # (N, H W)
        return (flat.sort(dim=1, descending=True).values * first).sum(1) / count[:, 0]

    def predict(self, image: Tensor) -> Prediction:
        inside = self.inside(image)
        healed, displacement = self._heal(image, inside)
        anomaly_map = self.anomaly_map(image, healed, inside)
        maps = {"foreground": inside.float()}
        if displacement is not None:
            maps["displacement"] = displacement * inside
        return Prediction(self.score(anomaly_map, inside), anomaly_map, healed, maps)
