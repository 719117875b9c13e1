"""Figures against healthy twins, each against its definition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from healmap.evaluation import twins


def stretched(image: np.ndarray, low: float = -1.0) -> np.ndarray:
    flat = (image - image.min()) / (image.max() - image.min())
    return low + (1 - low) * flat


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, twins.Twin]:
    """Image, healed image, twin (one channel) and what is said of them."""
    draw = np.random.default_rng(4)
    image, healed, twin = (draw.uniform(-1, 1, (1, 24, 24)).astype(np.float32) * scale for scale in (0.9, 0.7, 0.5))
    monkeypatch.setattr(twins, "twin_image", lambda dataset, index: twin)
    dataset = SimpleNamespace(items=[SimpleNamespace(patient_id="p")])
    found = twins.against_twin(dataset, 0, image, healed)  # type: ignore[arg-type]
    assert found is not None
    return image[0], healed[0], twin[0], found


def test_distances_before_and_after_healing(pictures: tuple[np.ndarray, np.ndarray, np.ndarray, twins.Twin]) -> None:
    image, healed, twin, found = pictures
    assert found.mse == pytest.approx(np.mean((healed - twin) ** 2))
    assert found.mse_untouched == pytest.approx(np.mean((image - twin) ** 2))


def test_differences_before_and_after_healing(pictures: tuple[np.ndarray, np.ndarray, np.ndarray, twins.Twin]) -> None:
    image, healed, twin, found = pictures
    x, a, t = stretched(image), stretched(healed), stretched(twin)
    assert found.mse_difference == pytest.approx(np.mean(((x - a) - (x - t)) ** 2), rel=1e-4)
    assert found.mse_difference_untouched == pytest.approx(np.mean((0 - (x - t)) ** 2), rel=1e-4)
    assert found.mse_difference != pytest.approx(found.mse_difference_untouched, rel=0.01)


def test_an_untouched_image_has_no_structure_in_common_with_the_truth(
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray, twins.Twin],
) -> None:
    image, healed, twin, found = pictures
    true = stretched(stretched(image) - stretched(twin), 0)
    done = stretched(stretched(image) - stretched(healed), 0)
    reference = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert found.ssim_difference == pytest.approx(structural_similarity(done, true, **reference), abs=2e-3)
    assert abs(found.ssim_difference_untouched) < 0.05
    assert found.ssim_difference > found.ssim_difference_untouched


def test_no_twin_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "twin_image", lambda dataset, index: None)
    blank = np.zeros((1, 16, 16), np.float32)
    assert twins.against_twin(SimpleNamespace(items=[]), 0, blank, blank) is None  # type: ignore[arg-type]
    assert twins.twin_figures([], None) == {}  # type: ignore[arg-type]


def test_what_healing_does_to_healthy_images_is_measured_stretched() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16)).astype(np.float32)
    assert twins.stretched_distance(image, image) == 0
    assert twins.stretched_distance(image, 0.5 * image + 0.1) == pytest.approx(0, abs=1e-10)
    other = np.ascontiguousarray(image[:, ::-1])
    expected = np.mean((stretched(image[0]) - stretched(other[0])) ** 2)
    assert twins.stretched_distance(image, other) == pytest.approx(expected, rel=1e-5)
