"""NIfTI: values as stored, and nothing made up about their place."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from healmap.errors import UnreadableError
from healmap.io import get_plane, n_slices, read_image

RNG = np.random.default_rng(2)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, order: str = "<", version: int = 1, **fields) -> Path:
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(array, affine, kind.header_class(endianness=order), dtype=array.dtype)
    data = bytearray(image.to_bytes())
    header = kind.header_class(bytes(data[: kind.header_class.sizeof_hdr]), endianness=order, check=False)
    for name, value in fields.items():
        header[name] = value
    data[: len(header.binaryblock)] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("version", "suffix"), [(1, ".nii"), (2, ".nii.gz")])
def test_every_type_and_byte_order(tmp_path: Path, dtype: str, order: str, version: int, suffix: str) -> None:
    array = (RNG.normal(size=(3, 4, 5)) * 50).astype(dtype).astype(f"{order}{dtype}")
    image = read_image(save(tmp_path / f"a{suffix}", array, np.eye(4), order, version))
    assert image.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.array, array)
    assert (image.kind, image.slice_axis) == ("nifti", 2)


def test_not_a_number_stays_what_it_is(tmp_path: Path) -> None:
    array = np.array([[[np.nan, np.inf, -np.inf, 1]]], np.float32)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.nii", array, np.eye(4))).array, array)


@pytest.mark.parametrize(
    ("slope", "inter", "scaled"), [(2.5, -3, True), (1, 0, False), (0, 9, False), (np.nan, 0, False), (1, 7, True)]
)
def test_scaling(tmp_path: Path, slope: float, inter: float, scaled: bool) -> None:
    array = RNG.integers(-900, 900, (3, 4, 5)).astype(np.int16)
    image = read_image(save(tmp_path / "a.nii", array, np.eye(4), scl_slope=slope, scl_inter=inter))
    assert image.array.dtype == (np.float32 if scaled else np.int16)
    np.testing.assert_array_equal(image.array, (array * float(slope) + inter).astype(np.float32) if scaled else array)


@pytest.mark.parametrize(("stored", "shape"), [((4, 5), (4, 5, 1)), ((4, 5, 1), (4, 5, 1)), ((4, 5, 6, 1), (4, 5, 6)),
                                              ((4, 5, 6, 2), (4, 5, 6, 2)), ((4, 5, 6, 1, 1), (4, 5, 6))])  # fmt: skip
def test_dimensions(tmp_path: Path, stored: tuple[int, ...], shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 99, stored).astype(np.uint8)
    image = read_image(save(tmp_path / "a.nii", array))
    np.testing.assert_array_equal(image.array, array.reshape(shape))


def test_several_volumes_follow_each_other(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (2, 3, 4, 5)).astype(np.uint8)
    image = read_image(save(tmp_path / "a.nii", array))
    assert [n_slices(image, axis) for axis in range(3)] == [10, 15, 20]
    np.testing.assert_array_equal(get_plane(image, 4 * 3 + 1), array[:, :, 1, 3])
    assert any("5 volumes" in note for note in image.notes)


@pytest.mark.parametrize("samples", [3, 4])
def test_colour(tmp_path: Path, samples: int) -> None:
    names = [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")][:samples]
    values = RNG.integers(0, 256, (3, 4, 5, samples), dtype=np.uint8)
    image = read_image(save(tmp_path / "a.nii", values.view(names)[..., 0]))
    assert image.colour
    np.testing.assert_array_equal(image.array, values[..., :3])


def test_what_is_not_supported_says_so(tmp_path: Path) -> None:
    whole = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    for array, words in ((whole.astype(np.complex64), "not supported"), (np.zeros((2, 2, 2, 2, 2), np.int16), "dimensions")):
        with pytest.raises(UnreadableError, match=words):
            read_image(save(tmp_path / "a.nii", array))
    cases = [
        ({"magic": b"ni1"}, "without its .img"),
        ({"magic": b""}, "magic"),
        ({"datatype": 77}, "unknown"),
        ({"vox_offset": 12}, "cannot begin"),
        ({"vox_offset": 1e9}, "cannot begin"),
        ({"dim": [3, -1, 4, 5, 1, 1, 1, 1]}, "shape"),
        ({"dim": [0] * 8}, "shape"),
        ({"dim": [3, 300, 4, 5, 1, 1, 1, 1]}, "file ends after"),
    ]
    for fields, words in cases:
        with pytest.raises(UnreadableError, match=words):
            read_image(save(tmp_path / "a.nii", whole, **fields))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, suffix: str) -> None:
    data = save(tmp_path / f"a{suffix}", RNG.integers(0, 99, (3, 4, 5)).astype(np.int16), np.eye(4)).read_bytes()
    for length in range(len(data)):
        (tmp_path / f"b{suffix}").write_bytes(data[:length])
        with pytest.raises(UnreadableError):
            read_image(tmp_path / f"b{suffix}")


def test_a_flipped_byte_under_gzip_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", RNG.integers(0, 9999, (9, 9, 9)).astype(np.int16), np.eye(4))
    data = bytearray(path.read_bytes())
    for at in range(20, len(data), 37):
        broken = data.copy()
        broken[at] ^= 4
        path.write_bytes(broken)
        with pytest.raises(UnreadableError):
            read_image(path)


AFFINE = np.array([[0.0, 0, 3, -10], [-1, 0, 0, 20], [0, 2, 0, 30], [0, 0, 0, 1]])


def test_units_become_millimetres(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 2), np.int16)
    for unit, factor in ((1, 1000), (2, 1), (3, 0.001), (0, 1)):
        image = read_image(save(tmp_path / "a.nii", array, AFFINE, xyzt_units=unit))
        np.testing.assert_allclose(image.affine[:3], AFFINE[:3] * factor)
        np.testing.assert_allclose(image.spacing, np.array([1, 2, 3]) * factor)


def test_what_the_file_does_not_say_is_not_made_up(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 2), np.int16)
    without = read_image(save(tmp_path / "a.nii", array, AFFINE, sform_code=0, qform_code=0))
    assert without.affine is None
    np.testing.assert_allclose(without.spacing, (1, 2, 3))
    assert nib.load(tmp_path / "a.nii").affine is not None  # what nibabel invents
    nothing = read_image(save(tmp_path / "b.nii", array, AFFINE, sform_code=0, qform_code=0, pixdim=[0] * 8))
    assert nothing.geometry is None
    singular = read_image(save(tmp_path / "c.nii", array, AFFINE, srow_x=[0, 0, 0, 0], qform_code=1))
    np.testing.assert_allclose(singular.affine, AFFINE, atol=1e-5)  # the qform's
    assert any("sform is not invertible" in note for note in singular.notes)
    broken = read_image(save(tmp_path / "d.nii", array, AFFINE, srow_x=[np.nan] * 4, qform_code=0))
    assert broken.affine is None
