"""PaDiM: one Gaussian of frozen features per position; the map is the Mahalanobis distance.

Defard, Setkov, Loesch, Audigier, *PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization*, ICPR
workshops 2020 (arXiv 2011.08785). Nothing is trained: healthy images pass once through the backbone, and what is kept are means
and covariances. There is no authors' program; the two in use keep the features of all images, which at 20,657 images of
256 x 256 takes hundreds of GB (the A2B-GAN paper's authors ran out of 500). Here the state is as large as the result.

Symbols: e_p embedding at position p, d of the channels of three stages of the backbone; μ_p, Σ_p their mean and covariance
over the healthy images; ε regularisation.

    Σ_p = 1/(n-1) Σ_i (e_ip - μ_p)(e_ip - μ_p)ᵀ + ε I                  (1)
    M_p = √( (e_p - μ_p)ᵀ Σ_p⁻¹ (e_p - μ_p) )                          (2)

The map is M enlarged and blurred, the score its maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..losses.precision import at_least_float32
from ..types import Batch, Needs, Prediction, Spec
from .backbone import Backbone, BackboneConfig
from .base import Losses, Method, Optimisers, Phase
from .blur import check_sigma, gaussian_blur
from .gaussian import Gaussians
from .processes import from_all_processes, require_finite
from .weights import kept

# d by backbone: the paper's, and for networks of the same widths (ours); others have 100, as ResNet-18 (ours).
CHANNELS = {"resnet18": 100, "wide_resnet50_2": 550, "resnet50": 550, "densenet169": 550}
# With ε relative to the variance at a position, of the mean variance over positions: the least that counts. Without it a
# position where all healthy images agree, such as black background, would have no ε.
LEAST_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class PaDiMConfig:
    """Settings of PaDiM. Defaults are the paper's, or ours where that is said; see docs/methods/padim.md."""

    steps: int = 0  # batches to learn from; 0: one pass over the data
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    d: int | None = None  # channels, drawn at random; None: as ``CHANNELS`` says, where there are so many; 0: all
    grid: int = 1  # paper: positions are those of stage 1; 2, ours: of stage 2, a quarter of the memory and a coarser map
    epsilon: float = 0.01  # paper; in the squared unit of ImageNet features
    relative: bool = False  # ours: epsilon counts in mean variances of the position, for features of another unit
    epsilon_extra: float = 0.0  # anomalib adds a further 1e-5
    sigma: float = 4.0  # pixels of the blur: paper and both programs; 0: none
    dtype: Literal["float64", "float32"] = (
        "float64"  # ours: of the statistics; float32: half the memory, distances agree to 1e-4
    )

    def __post_init__(self) -> None:
        for name in ("steps", "d", "epsilon", "epsilon_extra", "sigma"):
            value = getattr(self, name) or 0
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be at least 0, not {value}", hint="the method's page has usual values")
        if self.grid not in (1, 2, 3):
            raise ConfigError(f"grid {self.grid} is no stage of the backbone", hint="use 1, 2 or 3")


class PaDiM(Method):
    needs = Needs.HEALTHY
    title = "PaDiM (Defard et al., ICPR workshops 2020)"
    training_only = ("backbone.pretext",)
    Config = PaDiMConfig
    config: PaDiMConfig
    channels: Tensor  # (d,) int64, increasing

    def __init__(self, config: PaDiMConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.backbone = Backbone(config.backbone, spec.channels)
        self.backbone.check_size(spec.height, spec.width)
        check_sigma(config.sigma, spec)
        name, total = config.backbone.name, sum(self.backbone.channels)
        if config.d is not None and config.d > total:
            text = f"d = {config.d}, but backbone '{name}' has {total} channels"
            raise ConfigError(text, hint=f"use method.d={total} or fewer; 0 takes all")
        d = min(CHANNELS.get(name, 100), total) if config.d is None else config.d or total
        stride = self.backbone.strides[config.grid - 1]
        self.size = (spec.height // stride, spec.width // stride)
        # Drawn once and kept with the weights: with another choice the statistics mean nothing.
        self.register_buffer("channels", torch.randperm(total)[:d].sort().values)
        self.gaussians = Gaussians(self.size[0] * self.size[1], d, getattr(torch, config.dtype))
        self.register_load_state_dict_post_hook(_check_channels)

    @classmethod
    def tiny(cls) -> tuple[PaDiMConfig, Spec]:
        return PaDiMConfig(steps=8, backbone=BackboneConfig(name="filters"), d=12), Spec(height=32, width=32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PaDiM:
        """What ``to`` does with every tensor."""
        try:
            return super()._apply(fn, recurse)
        except TypeError as error:
            if self.config.dtype != "float64" or "float64" not in str(error):
                raise
            raise ConfigError("the statistics are float64, which this device lacks", hint="set method.dtype=float32") from None

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """e: (N, C, H, W) in [-1, 1] -> (N, d, positions), at least float32. Channels are chosen before maps are enlarged."""
        parts, first = [], 0
        for maps, count in zip(self.backbone.stages(image), self.backbone.channels, strict=True):
            own = self.channels[(self.channels >= first) & (self.channels < first + count)] - first
            first += count
            if not len(own):
                continue  # few channels may all come from other stages
            chosen = at_least_float32(maps[:, own])
            if chosen.shape[2] > self.size[0]:
                chosen = F.adaptive_avg_pool2d(chosen, self.size)
            elif chosen.shape[2] < self.size[0]:
                chosen = F.interpolate(chosen, self.size, mode="nearest")
            parts.append(chosen.flatten(2))
        return torch.cat(parts, dim=1)

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> dict[str, Losses]:
        image = next(batches).image
        e = self.embed(image)
        # One image that is not finite would spoil the statistics for good, so the step waits for this answer. A sum tells.
        require_finite(image.flatten(1).sum(1).isfinite() & e.flatten(1).sum(1).isfinite(), k)
        self.gaussians.update(from_all_processes(e))
        return {}

    def ridge(self, variance: Tensor) -> Tensor:
        """ε of every position, from its mean variance; (positions,) -> (positions,)."""
        cfg = self.config
        epsilon = torch.full_like(variance, cfg.epsilon)
        if cfg.relative:
            epsilon *= torch.maximum(variance, LEAST_SHARE * variance.mean())
        return epsilon + cfg.epsilon_extra

    def finish(self) -> None:
        self.gaussians.solve(self.ridge)

    def phases(self) -> list[Phase]:
        steps = self.config.steps or None
        observe = Phase(name="observe", step=self.step, steps=steps, ready=False, finish=self.finish)
        return [*self.backbone.begin(), observe]

    def check_data(self, images: int) -> list[str]:
        d, cfg = self.gaussians.d, self.config
        few = f"{images} healthy image{'s' * (images != 1)} for a covariance of {d} channels"
        if images < 2:
            hint = f"give at least 2, better many more than {d}" + ", and more steps or larger batches" * bool(cfg.steps)
            raise UsageError(f"too few: {few}", hint=hint)
        if images <= d and not cfg.epsilon + cfg.epsilon_extra:
            raise UsageError(f"too few without epsilon: {few}", hint=f"give more than {d}, or set method.epsilon")
        return [f"{few}: epsilon decides much; better have many more, or a lower method.d"] if images <= d else []

    def distance(self, image: Tensor) -> Tensor:
        """M of eq. (2): (N, 1, *grid)."""
        return self.gaussians.distance(self.embed(image)).unflatten(1, (1, *self.size))

    def predict(self, image: Tensor) -> Prediction:
        if image.shape[2:] != (self.spec.height, self.spec.width):
            size, own = "x".join(map(str, image.shape[2:])), f"{self.spec.height}x{self.spec.width}"
            raise ConfigError(f"images of {size}, but the statistics are of {own}", hint=f"resize them to {own}")
        distance = self.distance(image).to(torch.promote_types(image.dtype, torch.float32))
        enlarged = F.interpolate(distance, image.shape[2:], mode="bilinear")
        anomaly_map = gaussian_blur(enlarged, self.config.sigma).to(image.dtype)
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)


def merge(first: PaDiM, second: PaDiM) -> PaDiM:
    """``first``, as if it had seen ``second``'s images as well. ``second`` is as it was.

    Raises:
        ConfigError: they differ in settings (where the backbone's weights lay does not count), image shape, chosen channels or
            the backbone's tensors.
    """
    settings = (replace(m.config, backbone=replace(m.config.backbone, weights="")) for m in (first, second))
    for what, (a, b) in (("settings", settings), ("image shapes", (first.spec, second.spec))):
        if a != b:
            raise ConfigError(f"two fits with different {what} cannot be merged", hint="fit both from one recipe")
    # What served the backbone's own training only is not in weights files, so a loaded fit holds another.
    ours, theirs = ({k: v for k, v in kept(m).items() if not k.startswith("gaussians.")} for m in (first, second))
    differ = next((k for k, v in ours.items() if not torch.equal(v, theirs[k].to(v.device))), "")
    if differ:
        hint = "fit both from one seed and one backbone"
        raise ConfigError("two fits of different features cannot be merged", where=differ, hint=hint)
    first.gaussians.merge(second.gaussians)
    first.finish()
    return first


def _check_channels(method: nn.Module, keys: Any) -> None:
    """A file may hold anything in the place of the channels."""
    assert isinstance(method, PaDiM)
    channels, total = method.channels, sum(method.backbone.channels)
    if not bool((channels.diff() > 0).all() and (channels >= 0).all() and (channels < total).all()):
        raise ConfigError("the chosen channels are no increasing numbers", where="channels", hint="the weights are damaged")
