"""Plain frozen data that travels between the rooms. No behaviour, and no import of torch at run time.

Axes: N images, C channels, H rows, W columns. Intensities that a method sees lie in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HEALTHY, DISEASED, UNKNOWN = "healthy", "diseased", "unknown"
LABELS = (HEALTHY, DISEASED, UNKNOWN)
SPLITS = ("train", "val", "test")


class Needs(Enum):
    """What a method may see while it learns."""

    HEALTHY = "healthy images"
    MIXED_AND_HEALTHY = "unlabelled images, and others known to be healthy"
    DISEASED_AND_HEALTHY = "diseased images and healthy images, unpaired"
    LABELLED = "images with an image-level label"
    PAIRED = "diseased images with their healthy twins"
    SEGMENTED = "two unpaired sets of images, with masks"


@dataclass(frozen=True)
class Domains:
    """The domains of the labels.

    ``exclusive``: one class per image (labels are indices); otherwise several attributes at once (labels are multi-hot).
    With exclusive classes the first name is the healthy one.
    """

    names: tuple[str, ...] = (HEALTHY, DISEASED)
    exclusive: bool = True


@dataclass(frozen=True)
class Spec:
    """What a method is built for: image shape and label domains."""

    channels: int = 1
    height: int = 128
    width: int = 128
    domains: Domains = field(default_factory=Domains)


@dataclass(frozen=True)
class Batch:
    image: Tensor  # (N, C, H, W) in [-1, 1]; set A for MIXED_/DISEASED_AND_HEALTHY and SEGMENTED
    label: Tensor | None = None  # exclusive: (N,) int64, 0 = healthy; attributes: (N, K) float 0/1. Only for LABELLED
    healthy: Tensor | None = None  # (N, C, H, W) a second, unpaired draw (set B) for ..._AND_HEALTHY and SEGMENTED;
    #                                image's own healthy twin for PAIRED (a healthy image is its own)
    mask: Tensor | None = None  # (N, H, W) int64, 0 = background, 1 = marked, of image; only for SEGMENTED
    healthy_mask: Tensor | None = None  # the same of healthy


@dataclass(frozen=True)
class Prediction:
    score: Tensor  # (N,) higher = more diseased
    anomaly_map: Tensor | None = None  # (N, 1, H, W) >= 0, higher = more diseased
    healed: Tensor | None = None  # (N, C, H, W) in [-1, 1]
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    # further named results, first axis N:
    # "mask" (N, 1, H, W) in [0, 1], "displacement" (N, 2, H, W) in pixels (x, y), "probabilities" (N, K),
    # "residual" (N, 1, H, W) >= 0: where a method without an anomaly map differs from its reconstruction
