"""Geometry there and back, and normalisation: written out again, naively, and with awkward images."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healmap.data.preprocess import Preprocessing
from healmap.errors import ConfigError, UnreadableError
from healmap.experiment import DataConfig

NAMES = ("window", "percentile", "foreground-median", "zscore", "none")


def make(**settings_: Any) -> Preprocessing:
    return Preprocessing(DataConfig(**{"size": 32, **settings_}))


def blob(shape: tuple[int, int], y: float, x: float, sigma: float) -> Any:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(picture: Any) -> tuple[float, float]:
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return (rows * picture).sum() / picture.sum(), (columns * picture).sum() / picture.sum()


# ---- geometry ---------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(24, 90), st.integers(24, 90), st.sampled_from(["pad", "crop", "stretch"]), st.integers(16, 70), st.data())
def test_a_blob_comes_back_within_half_a_pixel(height: int, width: int, fit: str, size: int, data: st.DataObject) -> None:
    side = min(height, width)
    # Somewhere that a crop keeps, away from the edge, and not smaller than a working pixel.
    sigma = max(2.0, 1.5 * max(height, width) / size)
    reach = max(0.0, side / 2 - 3 * sigma)
    y = (height - 1) / 2 + reach * data.draw(st.floats(-0.9, 0.9))
    x = (width - 1) / 2 + reach * data.draw(st.floats(-0.9, 0.9))
    picture = blob((height, width), y, x, sigma)
    p = make(fit=fit, size=size)
    back = p.restore(p.prepare(picture), (height, width))
    assert back.shape == (height, width)
    assert back.dtype == np.float32
    inside = picture > 1e-3  # where nothing was cut off
    expected, got = centroid(picture * inside), centroid(np.where(inside, back, 0))
    assert abs(expected[0] - got[0]) < 0.5
    assert abs(expected[1] - got[1]) < 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["pad", "crop", "stretch"]), st.sampled_from([8, 31, 64]))
def test_sizes_always_match_and_values_are_never_overshot(height: int, width: int, fit: str, size: int) -> None:
    picture = np.random.default_rng(height * 100 + width).integers(50, 200, (height, width), dtype=np.uint8)
    p = make(fit=fit, size=size)
    grid = p.prepare(picture)
    assert grid.shape == (size, size)
    assert grid.dtype == np.uint8
    back = p.restore(grid.astype(np.float32), picture.shape)
    assert back.shape == picture.shape
    assert back.min() >= 0
    assert back.max() <= picture.max() + 1e-3
    square = p.square(height, width)
    if fit == "crop" and square is not None:
        outside = np.ones(picture.shape, bool)
        outside[square.top : square.top + square.side, square.left : square.left + square.side] = False
        assert (back[outside] == 0).all()


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_nothing_changes_where_nothing_is_resized(fit: str) -> None:
    picture = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    p = make(fit=fit)
    assert np.array_equal(p.prepare(picture), picture)
    assert np.array_equal(p.restore(picture, (32, 32)), picture)


def test_pad_fills_with_air_and_crop_keeps_the_middle() -> None:
    picture = np.full((32, 16), -900.0, np.float32)
    picture[:, 8] = 50
    grid = make(fit="pad").prepare(picture)
    assert (grid[:, :8] == -900).all()
    assert (grid[:, 24:] == -900).all()
    assert np.array_equal(grid[:, 8:24], picture)
    tall = np.arange(48, dtype=np.float32)[:, None].repeat(32, 1)
    assert np.array_equal(make(fit="crop").prepare(tall), tall[8:40])


def test_healed_pictures_keep_the_native_ring_around_a_crop() -> None:
    native = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)
    healed = np.zeros((1, 20, 20), np.float32)
    back = make(fit="crop", size=20).restore(healed, native.shape, outside=native)
    assert (back[:, 6:26] == 0).all()
    assert np.array_equal(back[:, :6], native[:, :6])
    assert np.array_equal(back[:, 26:], native[:, 26:])


def test_colour_is_restored_with_its_channels() -> None:
    assert make(channels=3).restore(np.zeros((3, 32, 32)), (10, 12, 3)).shape == (10, 12, 3)


def test_downsizing_averages_instead_of_picking() -> None:
    """Antialiasing: a checkerboard of single pixels becomes grey, not black or white."""
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    for picture in (board, board.astype(np.uint16) * 257, board.astype(np.float32)):
        grid = make().prepare(picture)
        assert grid.dtype == picture.dtype
        assert np.abs(grid[2:-2, 2:-2] / picture.max() - 0.5).max() < 0.02


def test_sixteen_bits_survive() -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (32, 32)).astype(np.uint16)
    assert np.array_equal(make().prepare(picture), picture)
    big_endian = picture.astype(">u2")
    assert np.array_equal(make().prepare(big_endian), picture)
    wide = make(size=64).prepare(np.array([[0, 65535], [65535, 0]], np.uint16))
    assert wide.max() == 65535


def test_a_tiny_lesion_does_not_vanish_from_the_working_grid() -> None:
    mask = np.zeros((256, 256), np.bool_)
    mask[100:102, 50:52] = True
    grid = make().prepare_mask(mask)
    assert grid.any()
    assert grid.sum() <= 4
    assert grid[100 // 8, 50 // 8]
    assert not make().prepare_mask(np.zeros((50, 40), np.bool_)).any()
    assert make(fit="stretch").prepare_mask(np.ones((50, 40), np.bool_)).all()


# ---- intensity ----------------------------------------------------------------------------------------------------------


def picture_of(kind: str, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 30.0, (32, 32))
    values[:10] = 0
    if kind == "uint8":
        return values.clip(0, 255).astype(np.uint8)
    if kind == "uint16":
        return (values * 100).clip(0, 65535).astype(np.uint16)
    return (values - 40).astype(np.float32)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_normalisations_against_their_formulae(name: str, kind: str) -> None:
    x = picture_of(kind)
    p = Preprocessing.fit(DataConfig(size=32, normalisation=name), [make(normalisation=name).case_stats(x)])
    stats = p.case_stats(x)
    v = x.astype(np.float64)
    low = 0.0 if v.min() >= 0 else v.min()
    foreground = v[v > low + 0.1 * (np.percentile(v, 99.5) - low)]
    if name == "percentile":
        a, b = np.percentile(v, [0.5, 99.5])
    elif name == "foreground-median":
        a, b = low, low + 2.5 * (np.median(foreground) - low)
    elif name == "zscore":
        a, b = foreground.mean() - 4 * foreground.std(), foreground.mean() + 4 * foreground.std()
    else:
        a, b = {"uint8": (0, 255), "uint16": (0, 65535)}.get(kind, (v.min(), v.max()) if name == "window" else (-1, 1))
    expected = np.clip((v - a) / (b - a) * 2 - 1, -1, 1)
    got = p.normalise(p.prepare(x, stats), stats)
    assert got.shape == (1, 32, 32)
    assert np.allclose(got[0], expected, atol=2e-6)
    inside = np.abs(expected) < 1
    assert np.allclose(p.unnormalise(got, stats)[0][inside], v[inside], rtol=1e-4, atol=1e-3 * (b - a) / 100)


def test_an_explicit_window_wins_over_the_file_s_and_that_over_the_type_s() -> None:
    x = np.full((8, 8), 100, np.uint8)
    given_ = make(normalisation="window", window=(50, 250), size=8)
    assert given_.limits(given_.case_stats(x, window=(0, 200))) == (150, 100)
    own = make(normalisation="window", size=8)
    assert own.limits(own.case_stats(x, window=(0, 200))) == (100, 100)
    assert own.limits(own.case_stats(x)) == (127.5, 127.5)
    with pytest.raises(ConfigError, match="not fitted"):
        own.limits(own.case_stats(x.astype(np.float32)))


def test_zscore_pools_the_training_cases() -> None:
    config = DataConfig(size=32, normalisation="zscore")
    cases = [picture_of("float32", k) for k in range(3)]
    p = Preprocessing.fit(config, [Preprocessing(config).case_stats(c) for c in cases])
    inside = []
    for c in cases:
        low = c.min()
        inside.append(c[c > low + 0.1 * (np.percentile(c, 99.5) - low)])
    pooled = np.concatenate(inside).astype(np.float64)
    assert p.fitted["mean"] == pytest.approx(pooled.mean(), rel=1e-5)
    assert p.fitted["std"] == pytest.approx(pooled.std(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((5, 7), np.uint8), np.full((5, 7), 255, np.uint8), np.full((5, 7), -3.5, np.float32),
        np.ones((1, 1), np.uint16), np.ones((1, 9), np.float32), np.array([[np.nan, 1.0], [np.inf, -np.inf]], np.float32),
        np.array([[1e30, -1e30, 5.0]], np.float32), np.array([[0, 1e-42]], np.float32), np.array([[1e300, 1.0]]), np.eye(6) > 0,
        np.array([[-(2**40), 2**40]]),
    ],
    ids=["black", "white", "negative", "one pixel", "one row", "infinite", "huge", "tiny", "overflow", "bool", "int64"],
)  # fmt: skip
def test_awkward_images_give_finite_values_in_range(name: str, x: Any) -> None:
    config = DataConfig(size=8, normalisation=name, nonfinite="lowest")
    p = Preprocessing.fit(config, [Preprocessing(config).case_stats(x)])
    stats = p.case_stats(x)
    v = p.normalise(p.prepare(x, stats), stats)
    assert np.isfinite(v).all()
    assert v.min() >= -1
    assert v.max() <= 1
    json.dumps(stats, allow_nan=False)


@pytest.mark.parametrize(
    "x",
    [
        np.full((4, 4), np.nan),
        np.full((4, 4), -np.inf, np.float32),
        np.full((4, 4), 3e38, np.float32),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_images_without_any_value_are_refused(x: Any) -> None:
    with pytest.raises(UnreadableError, match="no finite value"):
        make().case_stats(x)


def test_declared_padding_counts_neither_in_statistics_nor_in_pictures() -> None:
    x = picture_of("float32")
    padded = x.copy()
    padding = np.zeros(x.shape, np.bool_)
    padding[:6] = True
    padded[:6] = -30000
    p = make()
    assert p.case_stats(padded, padding=padding)["min"] == x[6:].min()
    stats = p.case_stats(padded, padding=padding)
    assert p.prepare(padded, stats, padding).min() == stats["low"]


def test_a_volume_three_slices_deep_is_no_colour_picture() -> None:
    volume = np.random.default_rng(0).normal(size=(8, 9, 3)).astype(np.float32)
    assert make().case_stats(volume, colour=False)["max"] == volume.max()
    colour = np.zeros((8, 9, 3), np.uint8)
    colour[..., 1] = 100
    assert make().case_stats(colour)["max"] == 59  # luma of pure green
    assert make(channels=3).case_stats(colour)["max"] == 100


def test_colour_and_grey_meet_the_channels_asked_for() -> None:
    colour, grey = np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)
    for channels, x in ((1, colour), (1, grey), (3, colour), (3, grey)):
        p = make(channels=channels, size=8, normalisation="none")
        assert p.normalise(p.prepare(x), p.case_stats(x)).shape == (channels, 8, 8)


@pytest.mark.parametrize("name", NAMES)
def test_stored_and_read_back_it_does_the_same(name: str) -> None:
    x = picture_of("float32")
    config = DataConfig(size=16, normalisation=name, fit="crop", percentiles=(2, 98), window=None)
    p = Preprocessing.fit(config, [Preprocessing(config).case_stats(x)])
    q = Preprocessing.from_plain(json.loads(json.dumps(p.to_plain())))
    stats = q.case_stats(x)
    assert stats == p.case_stats(x)
    assert np.array_equal(q.normalise(q.prepare(x), stats), p.normalise(p.prepare(x), stats))


def test_hostile_stored_settings_are_refused() -> None:
    with pytest.raises(ConfigError):
        Preprocessing.from_plain({"settings": {"size": "many"}, "fitted": {}})
    with pytest.raises(ConfigError):
        Preprocessing.from_plain({"settings": {"size": 16}, "fitted": {"evil": 1}})
