"""Two images of one shape: SSIM, the pixel metrics of DeScarGAN, Otsu's threshold, percentile masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .image_level import auroc
from .overlap import Overlap, overlap


def min_max(image: ArrayLike, low: float = -1.0, high: float = 1.0) -> NDArray[np.float64]:
    """The image stretched to [low, high] by its own extremes; a constant image becomes ``low``."""
    x = np.asarray(image, dtype=np.float64)
    span = x.max() - x.min()
    return (x - x.min()) / span * (high - low) + low if span > 0 else np.full_like(x, low)


def otsu(values: ArrayLike, bins: int = 256) -> float:
    """Otsu's threshold (1979): the bin centre that separates two classes with the largest variance between them."""
    v = np.asarray(values, dtype=np.float64).ravel()
    if v.min() == v.max():
        return float(v.min())
    counts, edges = np.histogram(v, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_below = np.cumsum(counts * centres) / below
        mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    return float(centres[int(np.argmax(below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2))])


def ssim(
    a: ArrayLike,
    b: ArrayLike,
    *,
    data_range: float = 1.0,
    window: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
) -> float:
    """Mean structural similarity (Wang et al. 2004) of (H, W) images: Gaussian window, only windows wholly inside the image.

    Raises ValueError for an image smaller than the window.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or min(x.shape) < window:
        raise ValueError(f"SSIM needs two images of one shape, at least {window} pixels a side, not {x.shape} and {y.shape}")
    half = window // 2
    g = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    g /= g.sum()

    def blur(z: NDArray[np.float64]) -> NDArray[np.float64]:
        z = ndimage.correlate1d(ndimage.correlate1d(z, g, axis=0), g, axis=1)
        return z[half : z.shape[0] - half, half : z.shape[1] - half]

    c1, c2 = ((ki * data_range) ** 2 for ki in k)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


@dataclass(frozen=True)
class DeScarGANPixels:
    """DeScarGAN's pixel metrics of one image (section 3.2 and the released evaluation)."""

    masks: Overlap
    auroc: float
    otsu_true: float
    otsu_difference: float
    mse_difference: float
    ssim: float
    variance_of_residual: float
    mse_healed: float
    variance_of_difference: float


def descargan_pixels(image: ArrayLike, healed: ArrayLike, true_difference: ArrayLike, threshold: float) -> DeScarGANPixels:
    """Arrays (H, W). Both images are first stretched to [-1, 1], each by its own extremes; difference = image - healed.

    threshold: on |difference| and |true difference|; the released program has 0.44195, the paper the mean Otsu threshold
    of the true differences.
    """
    x, a, gt = min_max(image), min_max(healed), np.asarray(true_difference, dtype=np.float64)
    d = x - a
    true = np.abs(gt) > threshold
    residual = min_max(gt) - min_max(d)
    return DeScarGANPixels(
        masks=overlap(np.abs(d) > threshold, true),
        auroc=auroc(true, min_max(np.abs(d), 0, 1)),
        otsu_true=otsu(np.abs(gt)),
        otsu_difference=otsu(np.abs(d)),
        mse_difference=float(np.mean((d - gt) ** 2)),
        ssim=ssim(min_max(d, 0, 1), min_max(gt, 0, 1)),
        variance_of_residual=float(np.var(residual)),
        mse_healed=float(np.mean(d**2)),
        variance_of_difference=float(np.var(d, ddof=1)),
    )


def percentile_mask(anomaly_map: ArrayLike, percentile: float = 99.0) -> tuple[NDArray[np.bool_], float]:
    """Pixels at or above the image's own percentile (linear interpolation), and that threshold: Fixed-Point GAN as released."""
    values = np.asarray(anomaly_map)
    threshold = float(np.percentile(values, percentile))
    return values >= threshold, threshold
