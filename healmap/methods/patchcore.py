"""PatchCore (Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, CVPR 2022), in bounded memory.

A bank of local features of healthy images; a patch that has no near neighbour in it is anomalous. Nothing is trained.

Symbols: φ_2, φ_3 maps of the backbone's stages 2 and 3, m a patch feature (D), M the bank (K, D), b neighbours of a bank entry.

    patch features:  each stage's 3 x 3 neighbourhoods, stage 3 enlarged to stage 2's grid, both in one vector
    bank:            M = greedy k-centre over all healthy patches (coreset.py), here capped by count and in two rounds
    (5), (6)         m^test,*, m* = argmax_{m^test} argmin_{m in M} |m^test - m|,   s* = |m^test,* - m*|
    (7)              s = (1 - exp|m^test,* - m*| / Σ_{m in N_b(m*)} exp|m^test,* - m|) s*
    map:             the patch distances enlarged to the image, Gaussian of 4 pixels

The paper keeps a share of all patches, which with 20,657 images of 256 x 256 means 87 to 260 GB before the first is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, TrainingError, UsageError
from ..losses.precision import at_least_float32
from ..types import Batch, Needs, Prediction, Spec
from .backbone import Backbone, BackboneConfig
from .base import Losses, Method, Optimisers, Phase
from .blur import check_sigma, gaussian_blur
from .checks import require_positive
from .coreset import Coreset, Projection, Reservoir, projection
from .neighbours import nearest
from .processes import from_all_processes, require_finite

PATCH = 3  # side of a neighbourhood: paper section 4.4.1, and both programs


@dataclass(frozen=True, kw_only=True)
class PatchCoreConfig:
    """Settings of PatchCore. Sources: the paper; its authors' program ("official"); anomalib 2.7.0; ours."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="wide_resnet50_2"))  # paper: section 4.1
    features: Literal["official", "anomalib"] = "official"  # how neighbourhoods become a vector; see ``FEATURES``
    dimensions: int = 1024  # D of the official features (its program); anomalib's have as many as stages 2 and 3 have channels
    coreset: Literal["k-centre", "random"] = "k-centre"  # paper; random (ours) where the healthy set may hold diseased images
    bank_size: int = 10_000  # ours: a count. The paper's shares (25, 10, 1 %) grow with the training set
    patches_per_image: int = 100  # ours: so many of each image are drawn for the k-centre, where it has more; 0: all
    chunk: int = 1000  # ours: images thinned together; 0.4 GB with 100 patches each of D = 1024
    coresets: int = 24  # ours: thinned chunks kept until the end, 41 MB each; 24,000 images in two rounds
    projection: Projection = "linear"  # official; anomalib: sparse. The k-centre's distances are taken in fewer dimensions
    projected: int = 128  # official; sparse has its own (Johnson-Lindenstrauss)
    neighbours: int = 1  # whose mean distance is a patch's: paper, and the official README (its program's default is 5)
    distance: Literal["euclidean", "squared"] = "euclidean"  # paper and anomalib; official: squared
    score: Literal["reweighted", "max"] = "reweighted"  # paper eq. (7); official: max, the largest patch distance itself
    reweighting: int = 9  # b, which the paper leaves open: anomalib's
    enlarge: Literal["bilinear", "nearest"] = "bilinear"  # paper and official; anomalib: nearest
    sigma: float = 4.0  # pixels of the map's Gaussian: paper section 3.3, both programs
    position: float = 0.0  # ours: how much a patch's place counts, in feature units per half side; for aligned images
    steps: int = 0  # 0: one pass over the data

    def __post_init__(self) -> None:
        require_positive(self, "dimensions", "bank_size", "chunk", "projected", "neighbours")
        for name in ("patches_per_image", "sigma", "position", "steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative", hint="0 is allowed; the method's page has usual values")
        if self.coresets < 2:
            raise ConfigError(f"coresets must be at least 2, not {self.coresets}", hint="two can be merged; 24 is the default")
        if self.reweighting < 2:  # with m* alone the factor of eq. (7) is 0
            hint = "9 is usual; score=max does without"
            raise ConfigError(f"reweighting must be at least 2, not {self.reweighting}", hint=hint)
        if self.bank_size < self.least:
            raise ConfigError(f"a bank of {self.bank_size} is too small", hint=f"these settings need at least {self.least}")

    @property
    def least(self) -> int:
        """Bank entries that a score needs."""
        return max(self.neighbours, self.reweighting if self.score == "reweighted" else 1)


class PatchCore(Method):
    needs = Needs.HEALTHY
    title = "PatchCore, Roth et al., CVPR 2022"
    training_only = ("coreset", "backbone.pretext")
    Config = PatchCoreConfig
    config: PatchCoreConfig
    coreset: Coreset | Reservoir | None  # while the bank is being fitted
    bank: Tensor  # (bank_size, D)
    filled: Tensor  # () int64, entries in use; 0: not fitted
    places: Tensor  # (2, h, w) centres of the patches (x, y) in half sides, [-1, 1]; its shape ties the bank to a size

    def __init__(self, config: PatchCoreConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.backbone = Backbone(config.backbone, spec.channels)
        self.backbone.check_size(spec.height, spec.width)
        check_sigma(config.sigma, spec)
        stride, (_, middle, deep) = self.backbone.strides[1], self.backbone.channels
        features = config.dimensions if config.features == "official" else middle + deep
        y, x = (_centres(side // stride) for side in (spec.height, spec.width))
        self.register_buffer("places", torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))]))
        self.register_buffer("bank", torch.zeros(config.bank_size, features + 2 * (config.position > 0)))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_module("coreset", None)
        self.expected: int | None = None  # images that one pass will show, once that is known

    @classmethod
    def tiny(cls) -> tuple[PatchCoreConfig, Spec]:
        small = PatchCoreConfig(
            backbone=BackboneConfig(name="filters"), dimensions=32, bank_size=40, patches_per_image=8, chunk=5, coresets=2,
            projected=8, sigma=1.0,
        )  # fmt: skip
        return small, Spec(height=32, width=32)

    # Features

    def patches(self, image: Tensor) -> Tensor:
        """The patch features m of images: (N, C, H, W) in [-1, 1] -> (N, h w, D), float32."""
        _, middle, deep = self.backbone.stages(image)
        with torch.autocast(image.device.type, enabled=False):
            middle, deep = at_least_float32(middle), at_least_float32(deep)
            features = FEATURES[self.config.features](middle, deep, self.config.dimensions)
            if self.config.position:
                places = (self.config.position * self.places).to(features).expand(len(features), -1, -1, -1)
                features = torch.cat([features, places], 1)
        return features.flatten(2).transpose(1, 2)

    # Fit

    @property
    def candidates(self) -> int:
        """Patches of an image that may enter the bank."""
        there, cfg = self.places[0].numel(), self.config
        return min(cfg.patches_per_image or there, there) if cfg.coreset == "k-centre" else there

    def check_data(self, images: int) -> list[str]:
        """Remembers the number as well: what gathers during one pass needs no more room than that. Not asked, it has all."""
        self.expected = None if self.config.steps else images
        count, cfg = images * self.candidates, self.config
        few = f"{images} healthy image{'s' * (images != 1)} of {self.candidates} patches each"
        if count < cfg.least:
            hint = "give more, or a lower method.reweighting" + "; or more steps, or larger batches" * bool(cfg.steps)
            raise UsageError(f"too few: {few}, but a score needs {cfg.least}", hint=hint)
        remarks = [f"{few}: the bank keeps them all, with room for {len(self.bank)}"] if count <= len(self.bank) else []
        values = PATCH**2 * max(self.backbone.channels[1:])
        if cfg.features == "official" and values < cfg.dimensions:
            name = cfg.backbone.name
            remarks.append(
                f"'{name}' has at most {values} values around a place, which official features spread over {cfg.dimensions}: "
                f"method.features=anomalib (recipe patchcore-{name}) holds as much in less memory"
            )
        return remarks

    def phases(self) -> list[Phase]:
        cfg, (size, dimensions) = self.config, self.bank.shape
        before = self.backbone.begin()
        chunk, slots, kept = cfg.chunk, cfg.coresets, size
        if self.expected is not None:  # the same for a run and for its resume, whose data are compared
            chunks = math.ceil(self.expected / chunk)
            chunk, slots, kept = (
                min(chunk, self.expected),
                max(2, min(slots, chunks)),
                min(size, self.expected * self.candidates),
            )
        if cfg.coreset == "random":
            self.coreset = Reservoir(kept, dimensions).to(self.bank)
        else:
            # Its size does not follow the images: the same rows have the same projection among few and among many.
            space = projection(cfg.projection, dimensions, cfg.projected, max(cfg.chunk * self.candidates, cfg.coresets * size))
            self.coreset = Coreset(kept, dimensions, chunk=chunk * self.candidates, slots=slots, space=space).to(self.bank)
        fit = Phase(name="fit", step=self.step, steps=cfg.steps or None, ready=False, finish=self.finish)
        return [*before, fit]

    def draw(self, patches: Tensor) -> Tensor:
        """The patches of a batch that have a chance to enter the bank: (N, P, D) -> (n, D), with keys for a random sample."""
        if isinstance(self.coreset, Reservoir):
            return self.coreset.with_keys(patches.flatten(0, 1))
        if self.candidates == patches.shape[1]:
            return patches.flatten(0, 1)
        drawn = torch.rand(patches.shape[:2], device=patches.device).topk(self.candidates).indices  # (N, candidates)
        return patches.gather(1, drawn[..., None].expand(-1, -1, patches.shape[2])).flatten(0, 1)

    @torch.no_grad()
    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> dict[str, Losses]:
        image = next(batches).image
        patches = self.patches(image)
        sound = image.flatten(1).isfinite().all(1) & patches.flatten(1).isfinite().all(1)
        require_finite(sound, k)
        assert self.coreset is not None, "phases() comes first"
        self.coreset.add(from_all_processes(self.draw(patches)))
        return {}

    @torch.no_grad()
    def finish(self) -> None:
        """The bank, from what was kept, which is let go: the last checkpoint does not hold it."""
        assert self.coreset is not None, "phases() comes first"
        rows, cfg = self.coreset.finish(), self.config
        if len(rows) < cfg.least:
            hint = "train on more healthy images"
            raise TrainingError(f"{len(rows)} healthy patches, but a score needs {cfg.least}", hint=hint)
        self.bank.zero_()
        self.bank[: len(rows)] = rows
        self.filled.fill_(len(rows))
        self.coreset = None

    # Answer

    def predict(self, image: Tensor) -> Prediction:
        if image.shape[2:] != (self.spec.height, self.spec.width):
            size, own = "x".join(map(str, image.shape[2:])), f"{self.spec.height}x{self.spec.width}"
            raise ConfigError(f"images of {size}, but the bank is of {own}", hint=f"resize them to {own}")
        patches = self.patches(image)  # (N, P, D)
        bank = self.bank[: int(self.filled) or None]
        near = nearest(patches.flatten(0, 1), bank, self.config.neighbours)
        distance = near.distance if self.config.distance == "euclidean" else near.distance.square()
        distance = distance.mean(1).view(patches.shape[:2])  # (N, P)
        score, at = distance.max(1)  # eq. (6): s*
        if self.config.score == "reweighted":
            which = torch.arange(len(image), device=image.device)
            score = score * self.weight(patches[which, at], near.entry[:, 0].view_as(distance)[which, at], bank)
        return Prediction(score.to(image.dtype), self.enlarged(distance, image))

    def weight(self, farthest: Tensor, entry: Tensor, bank: Tensor) -> Tensor:
        """Eq. (7)'s factor of s*, lower where the bank is dense around m*. m^test,*: (N, D), index of m*: (N,) -> (N,)."""
        around = nearest(bank[entry], bank, self.config.reweighting).entry  # N_b(m*), m* first among equals
        to_entry = (farthest - bank[entry]).square().sum(1, keepdim=True).sqrt()
        to_others = (farthest[:, None] - bank[around]).square().sum(2).sqrt()  # (N, b)
        return 1 - (to_entry - to_others.logsumexp(1, keepdim=True)).exp()[:, 0]

    def enlarged(self, distance: Tensor, image: Tensor) -> Tensor:
        """(N, P) -> the map, (N, 1, H, W)."""
        grid, size = distance.view(len(image), 1, *self.places.shape[1:]), image.shape[2:]
        bilinear = self.config.enlarge == "bilinear"
        full = F.interpolate(grid, size, mode="bilinear") if bilinear else F.interpolate(grid, size, mode="nearest")
        return gaussian_blur(full, self.config.sigma).to(image.dtype)


def official(middle: Tensor, deep: Tensor, dimensions: int) -> Tensor:
    """Official: all values of a neighbourhood averaged into ``dimensions`` bins, for each stage; their stack again.

    (N, C_2, h, w), (N, C_3, h_3, w_3) -> (N, dimensions, h, w). Bins run over the channels and straddle their borders. They are
    taken before stage 3 is enlarged, which is the same and needs a quarter of the memory, and image by image.
    """
    found = []
    for two, three in zip(middle.split(1), deep.split(1), strict=True):
        three = F.interpolate(_binned(three, dimensions), two.shape[2:], mode="bilinear")
        stacked = torch.cat([_binned(two, dimensions), three], 1).flatten(2).transpose(1, 2)  # (1, h w, 2 dimensions)
        found.append(F.adaptive_avg_pool1d(stacked, dimensions).transpose(1, 2).view(len(two), dimensions, *two.shape[2:]))
    return torch.cat(found)


def _binned(stage: Tensor, dimensions: int) -> Tensor:
    """The (C, 3, 3) values around each place, flattened, in ``dimensions`` averages: (N, C, h, w) -> (N, dimensions, h, w)."""
    around = F.unfold(stage, PATCH, padding=PATCH // 2).transpose(1, 2)  # (N, h w, 9 C)
    return F.adaptive_avg_pool1d(around, dimensions).transpose(1, 2).reshape(-1, dimensions, *stage.shape[2:])


def anomalib(middle: Tensor, deep: Tensor, dimensions: int) -> Tensor:
    """anomalib: the mean of the neighbourhood of each channel. (N, C_2, h, w), (N, C_3, h_3, w_3) -> (N, C_2 + C_3, h, w)."""
    middle, deep = (F.avg_pool2d(stage, PATCH, 1, PATCH // 2) for stage in (middle, deep))
    return torch.cat([middle, F.interpolate(deep, middle.shape[2:], mode="bilinear")], 1)


FEATURES = {"official": official, "anomalib": anomalib}


def _centres(count: int) -> Tensor:
    """Centres of ``count`` equal parts of [-1, 1]."""
    return (torch.arange(count) * 2 + 1) / count - 1
