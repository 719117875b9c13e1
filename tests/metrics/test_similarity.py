from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from healmap.metrics.similarity import descargan_pixels, min_max, otsu, percentile_mask, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.random((40, 50))
    return a, np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)


def test_ssim_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    want = structural_similarity(*pair, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ssim(*pair) == pytest.approx(want, abs=1e-12)
    assert ssim(pair[0], pair[0]) == pytest.approx(1)


def test_ssim_needs_room(pair: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(pair[0][:8], pair[1][:8])


def test_otsu_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    values = np.r_[pair[0].ravel() * 0.2, 0.7 + 0.1 * pair[1].ravel()]
    assert otsu(values) == pytest.approx(threshold_otsu(values), abs=1e-12)
    assert otsu(np.full(5, 0.3)) == 0.3


def test_a_constant_image_has_no_span() -> None:
    assert (min_max(np.full((3, 3), 7.0)) == -1).all()


def test_a_perfect_healing_scores_perfectly() -> None:
    rng = np.random.default_rng(1)
    healthy = min_max(rng.random((32, 32)))
    lesion = np.zeros((32, 32))
    lesion[10:16, 12:20] = 0.6
    image = np.clip(healthy + lesion, -1, 1)
    got = descargan_pixels(image, healthy, image - healthy, 0.3)
    assert got.masks.dice == 1
    assert got.mse_difference == pytest.approx(0, abs=1e-12)
    assert got.ssim == pytest.approx(1)


def test_percentile_mask_marks_its_share() -> None:
    mask, threshold = percentile_mask(np.arange(1000.0).reshape(20, 50), 99)
    assert mask.sum() == 10
    assert threshold == pytest.approx(989.01)
