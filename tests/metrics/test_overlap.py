from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from healmap.metrics.overlap import label_components, overlap, remove_small

masks = arrays(bool, (9, 11))


@given(masks, masks)
def test_overlap_agrees_with_sets(a: np.ndarray, b: np.ndarray) -> None:
    got, p, t = overlap(a, b), set(np.flatnonzero(a)), set(np.flatnonzero(b))
    assert (got.tp, got.fp, got.fn) == (len(p & t), len(p - t), len(t - p))
    assert got.tp + got.fp + got.fn + got.tn == a.size
    assert got.dice == pytest.approx(2 * len(p & t) / (len(p) + len(t)) if p or t else 1)
    assert got.iou == pytest.approx(got.dice / (2 - got.dice))


@given(masks, st.integers(0, 4))
def test_components_agree_with_regionprops(mask: np.ndarray, least: int) -> None:
    labels, parts = label_components(mask, least)
    want = [r for r in regionprops(label(mask, connectivity=2)) if r.area > least]
    assert sorted((p.area, *np.round(p.centroid, 9)) for p in parts) == sorted((r.area, *np.round(r.centroid, 9)) for r in want)
    assert (labels > 0).sum() == sum(p.area for p in parts)


def test_small_parts_go_and_diagonals_hold_together() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = mask[5, 5] = True
    assert remove_small(mask, 2).sum() == 3
    assert remove_small(mask, 3).sum() == 0
    assert remove_small(mask, 0).sum() == 4


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes"):
        overlap(np.zeros((2, 2)), np.zeros((2, 3)))
