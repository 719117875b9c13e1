"""Where a marked pixel of a made-up series lies in the patient, to 0.01 mm; and when no place may be claimed."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import dataset, make, save, series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy.spatial.transform import Rotation

from healmap.errors import GeometryError, UnreadableError
from healmap.io import find_images, get_plane, read_image, read_series, write_map

RNG = np.random.default_rng(11)
VOLUME = RNG.permutation(210).reshape(5, 6, 7).astype(np.int16)  # every voxel is known by its value
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
OBLIQUE = tuple(np.round(Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()[:, :2].T.ravel(), 6))


def place(k: int, r: int, c: int, orientation, start, spacing, step) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1 in RAS: position + column index along the row direction + row index along the column direction."""
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    lps = np.array(start) + k * np.asarray(step) + c * spacing[1] * across + r * spacing[0] * down
    return lps * (-1, -1, 1)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE, (-1, 0, 0, 0, -1, 0), (0, -1, 0, 0, 0, 1)])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_series(tmp_path: Path, orientation: tuple[float, ...], direction: int, tilt: float) -> None:
    start, spacing = (-12.25, 33.5, 101.125), (0.8, 1.3)
    step = direction * 2.5 * np.cross(orientation[:3], orientation[3:]) + tilt * np.array(orientation[3:])
    paths = series(tmp_path / "s", VOLUME, orientation=orientation, start=start, spacing=spacing, step=step)
    image = read_image(tmp_path / "s")
    assert image.slice_axis == 0
    order = range(5) if direction > 0 else range(4, -1, -1)  # always along the normal
    np.testing.assert_array_equal(image.array, VOLUME[list(order)])
    assert image.sources == tuple(paths[k] for k in order)
    for row, k in enumerate(order):
        there = image.affine @ (row, 4, 5, 1)
        assert np.abs(there[:3] - place(k, 4, 5, orientation, start, spacing, step)).max() < 0.01
    assert any("tilt" in note for note in image.notes) == (tilt != 0)
    if not tilt:
        theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
        for value in (0, 57, 209):
            mine, other = (volume @ (*np.argwhere(array == value)[0], 1)
                           for volume, array in ((image.affine, image.array), (theirs.affine, theirs.array)))  # fmt: skip
            np.testing.assert_allclose(mine, other * (-1, -1, 1, 1), atol=1e-3)


def test_a_map_of_a_series_lies_on_the_lesion(tmp_path: Path) -> None:
    start, step = (-12.25, 33.5, 101.125), np.cross(OBLIQUE[:3], OBLIQUE[3:]) * 2
    series(tmp_path / "s", VOLUME, orientation=OBLIQUE, start=start, spacing=(0.8, 1.3))
    image = read_image(tmp_path / "s")
    values = np.zeros(image.shape, np.float32)
    values[3, 2, 6] = 1
    written = nib.load(write_map(tmp_path / "map", values, image))
    lesion = written.affine @ (*np.argwhere(np.asarray(written.dataobj) == 1)[0], 1)
    assert np.abs(lesion[:3] - place(3, 2, 6, OBLIQUE, start, (0.8, 1.3), step)).max() < 0.01


def test_axial_planes_show_the_front_on_top_and_the_right_on_the_left(tmp_path: Path) -> None:
    series(tmp_path / "s", VOLUME)  # as scanners write them: rows run to the left, columns to the back
    image = read_image(tmp_path / "s")
    np.testing.assert_array_equal(get_plane(image, 2), VOLUME[2])


def test_a_gap_leaves_the_volume_without_a_place(tmp_path: Path) -> None:
    series(tmp_path / "s", VOLUME, keep=[0, 1, 3, 4])
    image = read_image(tmp_path / "s")
    assert image.shape == (4, 6, 7)
    assert image.affine is None
    assert image.geometry is None
    assert any("missing" in note for note in image.notes)


def test_copies_of_a_slice_are_used_once(tmp_path: Path) -> None:
    paths = series(tmp_path / "s", VOLUME)
    shutil.copy(paths[2], tmp_path / "s" / "copy.dcm")
    image = read_image(tmp_path / "s")
    np.testing.assert_array_equal(image.array, VOLUME)
    assert image.affine is not None
    assert any("copies" in note for note in image.notes)


def refuse(folder: Path, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        read_image(folder)


def test_contradictory_series_are_refused(tmp_path: Path) -> None:
    shared = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [1, 1]}

    def add(folder: str, name: str, z: float, array: np.ndarray = VOLUME[0], **tags) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        make(tmp_path / folder / name, array, **{**shared, "ImagePositionPatient": [0, 0, z], **tags})

    for k in range(3):
        for folder in ("echoes", "sizes", "turned", "placeless", "spacing", "mixed-up", "colour"):
            add(folder, f"{k}.dcm", k)
    add("echoes", "x.dcm", 1)
    refuse(tmp_path / "echoes", "same place")
    add("sizes", "x.dcm", 3, VOLUME[0, :5])
    refuse(tmp_path / "sizes", "differ in size")
    add("turned", "x.dcm", 3, ImageOrientationPatient=list(CORONAL))
    refuse(tmp_path / "turned", "differ in direction")
    add("placeless", "x.dcm", 3, ImagePositionPatient=None)
    refuse(tmp_path / "placeless", "no position")
    add("spacing", "x.dcm", 3, PixelSpacing=[2, 2])
    refuse(tmp_path / "spacing", "pixel spacing")
    add("mixed-up", "x.dcm", 3, PatientID="P2")
    refuse(tmp_path / "mixed-up", "different patients")
    add("colour", "x.dcm", 3, np.zeros((6, 7, 3), np.uint8), photometric="RGB")
    refuse(tmp_path / "colour", "size or colour")


def test_several_series_in_one_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for path in series(tmp_path / name, VOLUME):
            (tmp_path / "s").mkdir(exist_ok=True)
            path.rename(tmp_path / "s" / f"{name}{path.name}")
    assert len(read_series(tmp_path / "s")) == 2
    with pytest.raises(UnreadableError, match="2 DICOM series"):
        read_image(tmp_path / "s")
    assert find_images(tmp_path / "s") == [tmp_path / "s"]
    with pytest.raises(UnreadableError, match="no DICOM image"):
        read_series(tmp_path / "a")


def test_unrelated_films_stay_single(tmp_path: Path) -> None:
    for k in range(3):
        make(
            tmp_path / f"{k}.dcm",
            VOLUME[k],
            Modality="CR",
            SeriesInstanceUID="1.2.3",
            PixelSpacing=None,
            ImagerPixelSpacing=[0.1, 0.2],
        )
    assert find_images(tmp_path) == [tmp_path / f"{k}.dcm" for k in range(3)]
    image = read_image(tmp_path / "0.dcm")
    assert image.spacing == (0.1, 0.2)
    assert image.affine is None
    assert any("detector" in note for note in image.notes)


def test_a_single_slice_knows_its_place(tmp_path: Path) -> None:
    start, spacing = (1.0, 2.0, 3.0), (0.5, 0.75)
    tags = {"ImagePositionPatient": list(start), "ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": list(spacing)}
    image = read_image(make(tmp_path / "a.dcm", VOLUME[0], **tags))
    assert image.spacing == spacing
    there = image.affine @ (3, 5, 0, 1)
    assert np.abs(there[:3] - place(0, 3, 5, OBLIQUE, start, spacing, (0, 0, 0))).max() < 1e-4
    for broken in ([1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [1, 0, 0]):
        image = read_image(make(tmp_path / "b.dcm", VOLUME[0], **{**tags, "ImageOrientationPatient": broken}))
        assert (image.affine, image.spacing) == (None, spacing)
    assert read_image(make(tmp_path / "c.dcm", VOLUME[0])).geometry is None


def enhanced(heights: list[float], shared_orientation: bool = True) -> Dataset:
    shared, groups = Dataset(), []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = [0.5, 0.25], list(AXIAL)
    shared.PixelMeasuresSequence = Sequence([measures])
    if shared_orientation:
        shared.PlaneOrientationSequence = Sequence([orientation])
    for height in heights:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [10, 20, height]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    return dataset(
        VOLUME[: len(heights)],
        frames=len(heights),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
    )


@pytest.mark.parametrize(
    ("heights", "even"),
    [
        ([0, 3, 6, 9], True),
        ([9, 6, 3, 0], True),
        ([0, 6, 3, 9], False),
        ([0, 3, 3, 6], False),
        ([0, 3, 9, 12], False),
        ([0, 3, 7, 8], False),
    ],
)
def test_frames_of_an_enhanced_file_keep_their_order(tmp_path: Path, heights: list[float], even: bool) -> None:
    image = read_image(save(tmp_path / "a.dcm", enhanced(heights)))
    np.testing.assert_array_equal(image.array, VOLUME[:4])
    assert (image.affine is not None) == even
    if even:
        assert image.spacing == (3, 0.5, 0.25)
        for k, height in enumerate(heights):
            np.testing.assert_allclose(image.affine @ (k, 2, 4, 1), [-10 - 4 * 0.25, -20 - 2 * 0.5, height, 1], atol=1e-6)
    else:
        assert any(note.startswith("no volume") for note in image.notes)


def test_frames_without_orientation_have_no_place(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.dcm", enhanced([0, 3, 6], shared_orientation=False)))
    assert image.geometry is None


def test_a_dose_grid_lies_where_its_offsets_say(tmp_path: Path) -> None:
    tags = {
        "Modality": "RTDOSE",
        "ImagePositionPatient": [1, 2, 3],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [2, 3],
    }
    image = read_image(
        make(tmp_path / "a.dcm", VOLUME, frames=5, GridFrameOffsetVector=[0, 4, 8, 12, 16], DoseGridScaling=2, **tags)
    )
    np.testing.assert_allclose(image.affine @ (2, 0, 0, 1), [-1, -2, 11, 1])
    assert image.spacing == (4, 2, 3)
