from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label, regionprops

from healmap.metrics.froc import Froc, threshold_grid


def scene() -> tuple[np.ndarray, np.ndarray]:
    truth, values = np.zeros((30, 30), bool), np.zeros((30, 30))
    truth[2:8, 2:8] = truth[20:26, 20:26] = True
    values[3:7, 3:7] = 0.9  # inside the first lesion
    values[10:13, 15:18] = 0.7  # false
    values[21:24, 21:24] = 0.5  # inside the second
    values[27:29, 2:4] = 0.3  # false
    return values, truth


def test_a_scene_by_hand() -> None:
    values, truth = scene()
    froc = Froc(np.array([0.2, 0.4, 0.6, 0.8]))
    froc.add("p", values, truth)
    sensitivity, false = froc.curve()
    assert sensitivity.tolist() == [[0.5, 0.5, 1.0, 1.0]]
    assert false.tolist() == [[0, 1, 1, 2]]
    assert froc.sensitivity_at(1.0).tolist() == [1.0]
    assert froc.sensitivity_at(0.5).tolist() == [0.5]
    assert Froc(np.array([0.2, 0.8]), min_area=9).thresholds.tolist() == [0.8, 0.2]


def test_area_rule_is_more_than() -> None:
    values, truth = scene()
    froc = Froc(np.array([0.2]), min_area=9)  # the second lesion's candidate has 9 pixels, the false ones 9 and 4
    froc.add("p", values, truth)
    assert [float(c[0, 0]) for c in froc.curve()] == [0.5, 0.0]


def test_centroid_outside_its_ring_shaped_lesion_is_a_false_positive() -> None:
    ring = np.zeros((21, 21), bool)
    ring[4:17, 4:17] = True
    ring[7:14, 7:14] = False
    froc = Froc(np.array([0.5]))
    froc.add("p", ring.astype(float), ring)
    assert [float(c[0, 0]) for c in froc.curve()] == [0.0, 1.0]


def test_merging_below_the_crossing_does_not_count() -> None:
    truth, values = np.zeros((9, 40), bool), np.full((9, 40), 0.2)
    truth[:, 10:30] = True
    values[4, ::2] = 0.6  # at 0.6 ten specks are false; at 0.2 one part, centred in the lesion
    froc = Froc(np.array([0.6, 0.2]))
    froc.add("p", values, truth)
    assert froc.curve()[0].tolist() == [[1.0, 1.0]]
    assert froc.sensitivity_at(1.0).tolist() == [0.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_counts_agree_with_brute_force_and_weights_with_repetition(seed: int, least: int) -> None:
    rng = np.random.default_rng(seed)
    froc, images = Froc(np.array([0.9, 0.7, 0.5]), min_area=least), []
    for p in "ab":
        values = rng.random((12, 12))
        truth = rng.random((12, 12)) > 0.8
        froc.add(p, values, truth)
        images.append((values, truth))
    for k, t in enumerate(froc.thresholds):
        for p, (values, truth) in zip("ab", images, strict=True):
            lesions, found, false = label(truth, connectivity=2), set(), 0
            for region in regionprops(label(values >= t, connectivity=2)):
                if region.area > least:
                    y, x = (int(c + 0.5) for c in region.centroid)
                    found.add(lesions[y, x]) if lesions[y, x] else None
                    false += not lesions[y, x]
            assert (froc.rows[p]["found"][k], froc.rows[p]["false"][k]) == (len(found), false)
    sums = froc.sums(np.array([[2, 0]]))
    assert sums["images"].tolist() == [[2.0]]
    np.testing.assert_array_equal(sums["found"][0], 2 * froc.rows["a"]["found"])


def test_no_lesion_gives_no_sensitivity() -> None:
    froc = Froc(np.array([0.5]))
    froc.add("p", np.ones((4, 4)), np.zeros((4, 4)))
    assert np.isnan(froc.sensitivity_at(1.0)).all()
    assert np.isnan(Froc(np.array([0.5])).sensitivity_at(1.0)).all()


def test_grid_descends_from_beyond_the_sample_to_its_median() -> None:
    values = np.sort(np.random.default_rng(0).gamma(1, 0.1, 5000))
    grid = threshold_grid(values, np.ones(5000), extra=[0.123])
    assert (np.diff(grid) < 0).all()
    assert 0.123 in grid
    assert grid[0] == pytest.approx(3 * values[-1])
    assert grid[-1] == pytest.approx(np.median(values), rel=0.01)
    assert ((values >= grid[0]).sum(), (values >= grid[-1]).sum()) == (0, 2500)
    assert threshold_grid([], []).size == 0
    assert threshold_grid([], [], extra=[0.123]).tolist() == [0.123]
