"""Golden pictures: small tiles worked out by hand, compared with tolerance."""

from __future__ import annotations

import numpy as np

from healmap.detection.overlay import CONTOUR, blend, colour_bar, drawn_size, grey, outline, palette, panel, shown_slices
from healmap.report.pictures import TRUTH, difference_tile, grey_tile, map_tile, mask_tile


def test_one_scale_for_all_maps() -> None:
    weak, strong = np.full((8, 8), 0.05, np.float32), np.full((8, 8), 0.4, np.float32)
    # A faint map stays faint: nothing is stretched to its own extremes.
    assert map_tile(weak, 0.5).max() < 0.35 * 255
    np.testing.assert_allclose(map_tile(strong, 0.5)[0, 0] / 255, palette()[round(0.8 * 255)], atol=0.01)
    np.testing.assert_array_equal(map_tile(strong * 10, 0.5), map_tile(strong * 20, 0.5))  # saturated at the top
    assert (map_tile(np.zeros((8, 8), np.float32), 0.5).max(axis=(0, 1)) < 6).all()


def test_difference_is_symmetric_and_white_at_zero() -> None:
    values = np.zeros((256, 256), np.float32)
    values[:, :64], values[:, 192:] = 0.5, -0.5
    picture = difference_tile(values, 0.5).astype(int)
    bright, none, dark = picture[128, 10], picture[128, 128], picture[128, 245]
    assert bright[0] > bright[2] + 50  # image brighter than healed: red
    assert dark[2] > dark[0] + 50  # blue
    assert none.min() > 240


def test_grey_tile_keeps_values_and_enlarges() -> None:
    tile = grey_tile(np.full((32, 48), 0.5, np.float32))
    assert tile.shape == (192, 288, 3)
    assert set(np.unique(tile)) <= {127, 128}


def test_outlines_lie_on_the_masks_edge() -> None:
    truth, mask = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    truth[20:100, 20:100] = mask[150:200, 150:200] = True
    tile = mask_tile(np.zeros((256, 256), np.float32), truth, mask)
    np.testing.assert_array_equal(tile[20, 50], TRUTH)
    np.testing.assert_array_equal(tile[199, 170], CONTOUR)
    for y, x in ((60, 60), (10, 10), (175, 175), (19, 50)):
        np.testing.assert_array_equal(tile[y, x], 0)


def test_blend_shows_the_image_where_the_map_is_empty() -> None:
    base = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    empty = blend(base, np.zeros((8, 8), np.float32), 1.0)
    np.testing.assert_allclose(empty[..., 0], 255 * base, atol=1)
    full = blend(np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32), 1.0)
    np.testing.assert_allclose(full[0, 0] / 255, 0.8 * palette()[-1], atol=0.01)


def test_panel_colour_bar_and_sizes() -> None:
    base, values = np.zeros((10, 20), np.float32), np.zeros((10, 20), np.float32)
    assert panel(base, values, np.ones((10, 20), bool), 0.5, drawn_size(10, 20)).shape == (130, 260, 3)
    assert drawn_size(1000, 500) == (768, 384)
    assert drawn_size(300, 200) == (300, 200)
    bar = colour_bar(200, 0.5, 0.2)
    assert bar.shape == (200, 74, 3)
    np.testing.assert_allclose(bar[12, 12] / 255, palette()[-1], atol=0.02)
    assert (bar == CONTOUR).all(axis=2).any()
    assert outline(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool)).max() == 0


def test_grey_uses_the_runs_range_not_the_images() -> None:
    from healmap.data.preprocess import Preprocessing
    from healmap.experiment import DataConfig

    preprocessing = Preprocessing(DataConfig(size=32, normalisation="window", window=(0.0, 200.0)))
    plane = np.full((32, 32), 50, np.uint8)
    np.testing.assert_allclose(grey(plane, preprocessing.case_stats(plane), preprocessing), 0.25, atol=1e-6)


def test_shown_slices_are_even_and_hold_the_highest() -> None:
    slices = [(k, 1.0 if k == 33 else 0.0) for k in range(10, 90)]
    shown = shown_slices(slices)
    assert len(shown) == 12
    assert 33 in shown
    assert shown == sorted(shown)
    assert shown_slices(slices[:5]) == [10, 11, 12, 13, 14]
