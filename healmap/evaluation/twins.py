"""Where the healthy twin of a diseased image is known (column ``twin`` of the table): how close healing comes to it.

Only made-up data have twins. The figures are those of DeScarGAN's tables, on the working grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.twins import twin_image
from ..metrics.bootstrap import Figure
from ..metrics.similarity import min_max, ssim

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from .figures import Resampler, Tree

NAMES = (
    "mse", "mse_untouched", "mse_difference", "mse_difference_untouched", "ssim_difference", "ssim_difference_untouched",
)  # fmt: skip


@dataclass(frozen=True)
class Twin:
    """One diseased image against its twin.

    mse, mse_untouched: mean squared distance of the healed and of the given image from the twin, images in [-1, 1].
    mse_difference: DeScarGAN's MSE(d, GT), every image first stretched to [-1, 1] by its own extremes. ssim_difference: of
    the same two differences, stretched to [0, 1]. ``*_untouched``: what the image itself would get as its healed version.
    """

    patient: str
    mse: float
    mse_untouched: float
    mse_difference: float
    mse_difference_untouched: float
    ssim_difference: float
    ssim_difference_untouched: float


def against_twin(dataset: Dataset, index: int, image: NDArray[np.float32], healed: NDArray[np.float32]) -> Twin | None:
    """image, healed: (C, S, S) in [-1, 1]. None where the table names no twin, or the image is a slice of a volume.

    Raises:
        UnreadableError and its kin: the twin cannot be read.
    """
    twin = twin_image(dataset, index)
    if twin is None:
        return None
    x, a, t = (min_max(picture.mean(axis=0)) for picture in (image, healed, twin))
    found, true = x - a, x - t
    return Twin(
        dataset.items[index].patient_id,
        float(np.mean((healed - twin) ** 2)),
        float(np.mean((image - twin) ** 2)),
        float(np.mean((found - true) ** 2)),
        float(np.mean(true**2)),
        *(ssim(min_max(d, 0, 1), min_max(true, 0, 1)) if min(x.shape) >= 11 else float("nan") for d in (found, 0 * true)),
    )


def stretched_distance(image: NDArray[np.float32], healed: NDArray[np.float32]) -> float:
    """Mean squared distance of two images (C, S, S), each first stretched to [-1, 1] by its own extremes."""
    return float(np.mean((min_max(image.mean(axis=0)) - min_max(healed.mean(axis=0))) ** 2))


def twin_figures(twins: list[Twin], draw: Resampler) -> Tree:
    """Means over the images that have a twin; empty without any."""
    tree: Tree = {}
    for name in NAMES if twins else ():
        parts: dict[str, tuple[float, float]] = {}
        for twin in twins:
            total, count = parts.get(twin.patient, (0.0, 0.0))
            parts[twin.patient] = (total + getattr(twin, name), count + 1)
        found: Figure = draw.ratio(parts, len(twins), "the images are too small")
        tree[name] = found
    return tree
