"""Planes in display orientation and back, for every way a volume can lie."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from healmap.errors import GeometryError, UsageError
from healmap.io import Geometry, Image, get_plane, n_slices, plane_spacing, put_plane, read_image, write_map

ORIENTATIONS = [  # the 48 ways in which array axes can run along patient axes
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...] = (1.0, 2.0, 3.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (patient, sign, size) in enumerate(zip(order, signs, spacing, strict=True)):
        affine[patient, axis] = sign * size
    affine[:3, 3] = (-7.5, 11.25, 3.0)
    return affine


def volume_of(array: np.ndarray, affine: np.ndarray | None, colour: bool = False, axis: int = 2) -> Image:
    return Image(array, "nifti", geometry=None if affine is None else Geometry(affine), slice_axis=axis, colour=colour)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_planes_are_shown_as_radiologists_expect(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """The array holds every voxel's own place (right, front, head); each plane must show it growing the right way."""
    affine = affine_of(order, signs)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (4, 5, 6)), indexing="ij"), axis=-1)
    places = index @ affine[:3, :3].T + affine[:3, 3]  # (4, 5, 6, 3) in patient millimetres
    shown = {2: (1, 0), 1: (2, 0), 0: (2, 1)}  # plane along: (down, across), both against the axis
    for axis in range(3):
        planes = [get_plane(volume_of(places[..., k], affine), 1, axis) for k in range(3)]
        down, across = shown[order[axis]]
        assert np.ptp(planes[order[axis]]) == 0
        assert (np.diff(planes[down], axis=0) < 0).all()
        assert np.ptp(planes[down], axis=1).max() == 0
        assert (np.diff(planes[across], axis=1) < 0).all()
        spacing = plane_spacing(Image(places[..., 0], "nifti", Geometry(affine, (1.0, 2.0, 3.0)), slice_axis=2), axis)
        assert spacing == (-np.diff(planes[down], axis=0)[0, 0], -np.diff(planes[across], axis=1)[0, 0])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([None, *ORIENTATIONS]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
    arrays(np.int16, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(-900, 900)),
    st.floats(-0.6, 0.6),
)
def test_putting_planes_back_restores_the_volume(orientation, axis, colour, times, array, angle) -> None:
    affine = None
    if orientation is not None:
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine_of(*orientation)  # oblique too
    if times and not colour:
        array = np.stack([array + t for t in range(times)], axis=-1)
    if colour:
        array = np.stack([array, array + 1, array * 2], axis=-1)
    image = volume_of(array, affine, colour)
    assert n_slices(image, axis) == array.shape[axis] * (array.shape[3] if times and not colour else 1)
    back = np.full_like(array, 32767)
    for k in range(n_slices(image, axis)):
        plane = get_plane(image, k, axis)
        assert plane.flags["C_CONTIGUOUS"]
        assert not np.shares_memory(plane, array)
        put_plane(back, plane, k, axis, like=image)
    np.testing.assert_array_equal(back, array)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.sampled_from(["sform", "qform", "both", "none"]), st.sampled_from([1, 2]))
def test_maps_lie_exactly_on_their_nifti_input(tmp_path_factory, orientation, form, version) -> None:
    folder: Path = tmp_path_factory.mktemp("maps")
    affine = affine_of(*orientation, spacing=(0.9, 1.5, 2.25))
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    source = kind(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    source.header.set_sform(affine, code=1 if form in ("sform", "both") else 0)
    shifted = affine.copy()
    shifted[0, 3] += 40
    source.header.set_qform(shifted if form == "both" else affine, code=1 if form in ("qform", "both") else 0)
    source.header["pixdim"][1:4] = (0.9, 1.5, 2.25)
    source.header["descrip"] = b"Canary"
    (folder / "in.nii").write_bytes(source.to_bytes())
    image = read_image(folder / "in.nii")
    np.testing.assert_allclose(image.spacing, (0.9, 1.5, 2.25), rtol=1e-6)
    if form == "none":
        assert image.affine is None
        assert any("orientation" in note for note in image.notes)
    else:
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
        assert any("differ" in note for note in image.notes) == (form == "both")
    values = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    written = write_map(folder / "case.1", values, image)
    assert written.name == "case.1.nii.gz"
    before, after = nib.load(folder / "in.nii"), nib.load(written)
    assert type(before) is type(after)
    assert after.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(after.dataobj), values)
    np.testing.assert_array_equal(after.affine, before.affine)
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert after.header[name] == before.header[name]
    np.testing.assert_array_equal(after.header.get_qform(), before.header.get_qform())
    np.testing.assert_array_equal(after.header.get_sform(), before.header.get_sform())
    assert b"Canary" not in after.to_bytes()
    again = read_image(written)
    np.testing.assert_array_equal(again.array, values)


def test_wrong_indices_and_grids_are_refused() -> None:
    image = volume_of(np.zeros((2, 3, 4)), None)
    for index, axis in ((4, 2), (-1, 2), (0, 3)):
        with pytest.raises(UsageError):
            get_plane(image, index, axis)
    with pytest.raises(GeometryError):
        put_plane(np.zeros((2, 3, 4)), np.zeros((3, 2)), 0, 2, like=image)
    with pytest.raises(GeometryError):
        put_plane(np.zeros((2, 3, 5)), np.zeros((2, 3)), 0, 2, like=image)
    plane = Image(np.zeros((5, 6)), "png")
    assert n_slices(plane) == 1
    assert get_plane(plane, 0).shape == (5, 6)
    with pytest.raises(UsageError):
        get_plane(plane, 1)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([1.0, 1, 1, 2])])
def test_no_geometry_is_made_of_a_broken_affine(bad: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Geometry(bad)
