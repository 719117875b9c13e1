"""Every way DICOM writes numbers, with exact expected pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import SYNTAXES, dataset, make, save
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from healmap.errors import UnreadableError
from healmap.io import read_image
from healmap.io.dicom import read_dicom_stored

RNG = np.random.default_rng(7)


def grey(bits: int, signed: bool, shape: tuple[int, ...] = (33, 40)) -> np.ndarray:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    array = RNG.integers(low, high, shape).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    array.flat[0], array.flat[1] = low, high - 1
    return array


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_depth_and_sign_in_every_lossless_syntax(tmp_path: Path, bits: int, signed: bool, syntax: str) -> None:
    stored = grey(bits, signed)
    path = make(tmp_path / "a.dcm", stored, syntax, bits=bits)
    for array in (read_dicom_stored(path), read_image(path).array):
        assert array.dtype == stored.dtype
        np.testing.assert_array_equal(array, stored)


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian", "deflated", "rle", "jpeg-ls", "jpeg-2000"])
def test_colour_and_several_frames(tmp_path: Path, syntax: str) -> None:
    stored = RNG.integers(0, 256, (3, 33, 35, 3), dtype=np.uint8)
    image = read_image(make(tmp_path / "a.dcm", stored, syntax, photometric="RGB", frames=3))
    np.testing.assert_array_equal(image.array, stored)
    assert (image.colour, image.slice_axis, image.shape) == (True, 0, (3, 33, 35))


@pytest.mark.parametrize("dtype", ["u4", "i4", "f4", "f8"])
def test_wide_values(tmp_path: Path, dtype: str) -> None:
    stored = (RNG.normal(size=(5, 6)) * 1e5).astype(dtype)
    np.testing.assert_array_equal(read_image(make(tmp_path / "a.dcm", stored)).array, stored)


def test_one_bit_per_pixel_starts_at_the_lowest_bit(tmp_path: Path) -> None:
    stored = RNG.integers(0, 2, (3, 5, 7), dtype=np.uint8)
    ds = dataset(stored, frames=3, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0)
    ds.PixelData = np.packbits(stored.reshape(-1), bitorder="little").tobytes()
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", ds)).array, stored)


@pytest.mark.parametrize("syntax", ["explicit", "big-endian", "rle"])
@pytest.mark.parametrize(("high", "bits"), [(15, 12), (13, 12), (11, 12), (9, 9)])
def test_only_the_stored_bits_count(tmp_path: Path, high: int, bits: int, syntax: str) -> None:
    """High bit not stored - 1, and old overlays in the bits around."""
    stored, shift = grey(bits, signed=False).astype(np.uint16), high + 1 - bits
    noise = RNG.integers(0, 65536, stored.shape).astype(np.uint16) & np.uint16(~((2**bits - 1) << shift) & 0xFFFF)
    path = make(tmp_path / "a.dcm", (stored << shift) | noise, syntax, bits=bits, high=high)
    np.testing.assert_array_equal(read_image(path).array, stored)


def test_the_sign_is_that_of_the_stored_bits(tmp_path: Path) -> None:
    stored = grey(12, signed=True)
    path = make(tmp_path / "a.dcm", (stored.view(np.uint16) & 0x0FFF).view(np.int16), bits=12)
    np.testing.assert_array_equal(read_image(path).array, stored)


RESCALE = [  # slope, intercept, stored type, expected type
    (1, 0, "u2", "u2"), (1, -1024, "i2", "i2"), (1, -1024, "u2", "i2"), (2, -4096, "u2", "i2"), (1, -1000, "u1", "i2"),
    (300, 5, "u2", "i4"), (-1, 0, "u1", "i2"), (0.5, 0, "u2", "f4"), (1.0000001, 0.25, "i2", "f4"), (0, 3, "u2", "u2"),
]  # fmt: skip


@pytest.mark.parametrize(("slope", "intercept", "dtype", "expected"), RESCALE)
def test_rescale(tmp_path: Path, slope: float, intercept: float, dtype: str, expected: str) -> None:
    stored = RNG.integers(0, 200 if dtype == "u1" else 4000, (8, 9)).astype(dtype)
    image = read_image(make(tmp_path / "a.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept))
    assert image.array.dtype == np.dtype(expected)
    # A slope of 0 would erase the image; it is ignored, with a note.
    np.testing.assert_array_equal(image.array, (stored.astype(np.float64) * (slope or 1) + intercept).astype(expected))


def test_a_modality_table_comes_before_everything(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [8, 2, 16], "US", [0, 10, 40, 90, 160, 250, 360, 1000]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    stored = np.array([[0, 2, 3], [8, 9, 200]], dtype=np.uint8)
    path = make(tmp_path / "a.dcm", stored, ModalityLUTSequence=Sequence([item]))
    np.testing.assert_array_equal(read_image(path).array, [[0, 0, 10], [360, 1000, 1000]])
    path = make(tmp_path / "b.dcm", stored, ModalityLUTSequence=Sequence([item]), photometric="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path).array, [[1000, 1000, 990], [640, 0, 0]])


@pytest.mark.parametrize(("dtype", "bits", "ends"), [("u1", 8, 255), ("u2", 12, 4095), ("i2", 16, -1), ("u2", 16, 65535)])
def test_monochrome1_is_turned_over_once(tmp_path: Path, dtype: str, bits: int, ends: int) -> None:
    stored = RNG.integers(0, 100, (6, 7)).astype(dtype)
    tags = {
        "photometric": "MONOCHROME1",
        "bits": bits,
        "RescaleIntercept": 10,
        "RescaleSlope": 2,
        "WindowCenter": 50,
        "WindowWidth": 21,
    }
    image = read_image(make(tmp_path / "a.dcm", stored, **tags))
    turn = 2 * ends + 20
    np.testing.assert_array_equal(image.array, turn - (stored.astype(int) * 2 + 10))
    assert image.window == (turn - 59.5, turn - 39.5)
    assert any("MONOCHROME1" in note for note in image.notes)
    np.testing.assert_array_equal(read_dicom_stored(tmp_path / "a.dcm"), stored)


WINDOWS = [
    ({"WindowCenter": 40, "WindowWidth": 400}, (-160.0, 239.0)),  # PS3.3 C.11.2.1.2
    ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, (-160.0, 240.0)),
    ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, (-160.0, 240.0)),
    ({"WindowCenter": [40, 500], "WindowWidth": [400, 1500]}, (-160.0, 239.0)),
    ({"WindowCenter": 40, "WindowWidth": 0}, None),
    ({"WindowCenter": 40}, None),
    ({}, None),
]


@pytest.mark.parametrize(("tags", "window"), WINDOWS)
def test_windows_are_recorded_and_never_applied(tmp_path: Path, tags: dict, window: tuple[float, float] | None) -> None:
    stored = grey(12, signed=True)
    image = read_image(make(tmp_path / "a.dcm", stored, bits=12, **tags))
    assert image.window == window
    np.testing.assert_array_equal(image.array, stored)


PADDING = [
    ("i2", {"PixelPaddingValue": -2000}, lambda a: a == -2000),
    ("i2", {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}, lambda a: (a >= -2000) & (a <= -1900)),
    ("i2", {"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2000}, lambda a: (a >= -2000) & (a <= -1900)),
    ("u2", {"PixelPaddingValue": 63536}, lambda a: a == 63536),
]


@pytest.mark.parametrize(("dtype", "tags", "expected"), PADDING)
def test_padding_is_marked_by_stored_values(tmp_path: Path, dtype: str, tags: dict, expected) -> None:
    stored = np.array([[-2000, -1950, -1900], [0, 5, -1899]]).astype(dtype)
    image = read_image(make(tmp_path / "a.dcm", stored, RescaleIntercept=-1024, RescaleSlope=1, **tags))
    assert image.padding is not None
    np.testing.assert_array_equal(image.padding, expected(stored.astype(int)))


def test_padding_written_with_the_wrong_sign_is_understood(tmp_path: Path) -> None:
    ds = dataset(np.array([[-2000, 1]], dtype=np.int16))
    ds.add_new(0x00280120, "US", 63536)
    image = read_image(save(tmp_path / "a.dcm", ds))
    np.testing.assert_array_equal(image.padding, [[True, False]])
    assert read_image(make(tmp_path / "b.dcm", np.zeros((2, 2), np.int16))).padding is None


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_are_looked_up(tmp_path: Path, bits: int) -> None:
    stored = np.array([[10, 11, 12], [13, 9, 200]], dtype=np.uint8)  # the table begins at 10; outside: its ends
    table = RNG.integers(0, 2**bits, (3, 4)).astype("u2")
    palette = {}
    for name, entries in zip(("Red", "Green", "Blue"), table, strict=True):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 10, bits]
        palette[f"{name}PaletteColorLookupTableData"] = entries.astype(f"<u{bits // 8}").tobytes()
    image = read_image(make(tmp_path / "a.dcm", stored, photometric="PALETTE COLOR", **palette))
    np.testing.assert_array_equal(image.array, table.T[[[0, 1, 2], [3, 0, 3]]])
    assert image.colour


@pytest.mark.parametrize("depth", [8, 16])
def test_planar_colour(tmp_path: Path, depth: int) -> None:
    stored = RNG.integers(0, 2**depth, (3, 5, 7)).astype(f"u{depth // 8}")
    image = read_image(make(tmp_path / "a.dcm", stored, photometric="RGB", planar=1))
    np.testing.assert_array_equal(image.array, np.moveaxis(stored, 0, -1))


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    """PS3.3 C.7.6.3.1.2, checked on colours whose values are known."""
    ybr = np.array(
        [[[76, 85, 255], [150, 44, 21], [29, 255, 107]], [[255, 128, 128], [0, 128, 128], [128, 128, 128]]], dtype=np.uint8
    )
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [128, 128, 128]]])
    image = read_image(make(tmp_path / "a.dcm", ybr, photometric="YBR_FULL"))
    assert np.abs(image.array.astype(int) - rgb).max() <= 1


def test_overlay_groups_are_not_burnt_in(tmp_path: Path) -> None:
    stored = grey(12, signed=False, shape=(8, 8))
    ds = dataset(stored, bits=12)
    ds.add_new(0x60000010, "US", 8)
    ds.add_new(0x60000011, "US", 8)
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60003000, "OW", b"\xff" * 8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", ds)).array, stored)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 3), (17, 1), (255, 257)])
@pytest.mark.parametrize("syntax", ["explicit", "rle", "deflated"])
def test_odd_sizes(tmp_path: Path, shape: tuple[int, int], syntax: str) -> None:
    stored = grey(8, signed=False, shape=shape) if np.prod(shape) > 1 else np.full(shape, 77, np.uint8)
    np.testing.assert_array_equal(read_image(make(tmp_path / "a.dcm", stored, syntax)).array, stored)


def test_a_dose_grid_is_scaled(tmp_path: Path) -> None:
    stored = RNG.integers(0, 2**31, (3, 4, 5)).astype(np.uint32)
    path = make(tmp_path / "a.dcm", stored, frames=3, Modality="RTDOSE", DoseGridScaling="0.0001", DoseUnits="GY")
    np.testing.assert_array_equal(read_image(path).array, (stored.astype(np.float64) * 0.0001).astype(np.float32))


def test_every_frame_has_its_own_scaling(tmp_path: Path) -> None:
    stored, groups = grey(8, signed=False, shape=(2, 4, 5)), []
    for slope in (0.5, 2.0):
        step, group = Dataset(), Dataset()
        step.RescaleSlope, step.RescaleIntercept = slope, 1
        group.PixelValueTransformationSequence = Sequence([step])
        groups.append(group)
    image = read_image(make(tmp_path / "a.dcm", stored, frames=2, PerFrameFunctionalGroupsSequence=Sequence(groups)))
    np.testing.assert_array_equal(image.array, stored * np.float32([0.5, 2])[:, None, None] + 1)


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "PixelRepresentation", "PhotometricInterpretation", "PixelData"]
)
def test_a_missing_element_is_a_typed_error(tmp_path: Path, keyword: str) -> None:
    path = make(tmp_path / "a.dcm", grey(8, signed=False), **{keyword: None})
    with pytest.raises(UnreadableError) as caught:
        read_image(path)
    assert "Canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["HighBit", "BitsStored", "SamplesPerPixel", "NumberOfFrames"])
def test_what_can_be_told_without_the_element_is_read(tmp_path: Path, keyword: str) -> None:
    stored = grey(16, signed=False)
    try:
        image = read_image(make(tmp_path / "a.dcm", stored, **{keyword: None}))
    except UnreadableError:
        assert keyword in ("BitsStored", "SamplesPerPixel")  # a typed refusal is as good as a reading
    else:
        np.testing.assert_array_equal(image.array, stored)


def test_pixels_cut_short_are_an_error_and_not_padded(tmp_path: Path) -> None:
    ds = dataset(grey(16, signed=False))
    ds.PixelData = ds.PixelData[:-2]
    with pytest.raises(UnreadableError, match="cut short: 2638 of 2640 bytes"):
        read_image(save(tmp_path / "a.dcm", ds))


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    stored = grey(12, signed=False)
    whole = make(tmp_path / "a.dcm", stored, "implicit", bits=12).read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    (tmp_path / "b").write_bytes(whole[144 + length :])
    image = read_image(tmp_path / "b")
    np.testing.assert_array_equal(image.array, stored)
    assert any("transfer syntax" in note for note in image.notes)
