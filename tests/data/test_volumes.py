"""Volumes expand to slices: which, with which label, turned how, and back to the file's own grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pil

from healmap.data.case import plane_axis
from healmap.data.check import check
from healmap.data.dataset import open_dataset
from healmap.data.table import Row, Table, read_table, write_table
from healmap.errors import UsageError
from healmap.experiment import DataConfig
from healmap.io.image import put_plane

CONFIG = DataConfig(size=16, normalisation="percentile")
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def save(path: Path, array: Any, affine: Any = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def brain(tmp_path: Path) -> Callable[..., Table]:
    """A volume of 12 x 14 x 10 voxels; planes 0, 1 and 9 of the third axis are empty; the lesion is in planes 4 and 5."""

    def make(label: str = "diseased", mask: bool = True, **extra: str) -> Table:
        values = np.random.default_rng(0).uniform(50, 100, (12, 14, 10)).astype(np.float32)
        values[:, :, [0, 1, 9]] = 0
        seg = np.zeros(values.shape, np.uint8)
        seg[3:6, 4:8, 4:6] = 2
        values[seg > 0] = 200
        save(tmp_path / "v.nii.gz", values)
        save(tmp_path / "seg.nii.gz", seg)
        return Table(
            tmp_path, (Row("v.nii.gz", label, "p1", "", "seg.nii.gz" if mask else "", extra=extra),), name="labels.csv"
        )

    return make


def test_a_mask_labels_the_slices_and_background_is_left_out(brain: Callable[..., Table]) -> None:
    dataset = open_dataset(brain(), None, CONFIG)
    assert [i.slice for i in dataset.items] == [2, 3, 4, 5, 6, 7, 8]
    assert [i.label for i in dataset.items] == ["healthy"] * 2 + ["diseased"] * 2 + ["healthy"] * 3
    assert [i.key for i in dataset.items][:2] == ["v.nii.gz#0002", "v.nii.gz#0003"]
    assert dataset.notes == ("3 planes of volumes left out: nothing but background",)
    assert {i.patient_id for i in dataset.items} == {"p1"}
    strict = open_dataset(brain(), None, replace(CONFIG, min_slices_to_tumour=2))
    assert [i.slice for i in strict.items] == [2, 4, 5, 7, 8]


@pytest.mark.parametrize(("label", "expected"), [("healthy", "healthy"), ("diseased", "unknown"), ("unknown", "unknown")])
def test_without_a_mask_only_a_healthy_volume_says_something_of_its_slices(
    brain: Callable[..., Table], label: str, expected: str
) -> None:
    assert {i.label for i in open_dataset(brain(label, mask=False), None, CONFIG).items} == {expected}


def test_a_healthy_volume_with_a_lesion_in_its_mask_is_refused(brain: Callable[..., Table]) -> None:
    table = brain("healthy")
    write_table(table, table.root / "labels.csv")
    (table.root / "slices.csv").write_text("path,slice,label\nv.nii.gz,5,diseased\n")
    with pytest.raises(UsageError, match="slice 5 diseased, but the table calls the volume healthy"):
        open_dataset(table.root, None, CONFIG)


def test_slices_csv_chooses_and_labels(brain: Callable[..., Table]) -> None:
    table = brain()
    write_table(table, table.root / "labels.csv")
    slices = table.root / "slices.csv"
    slices.write_text("patient_id,slice,label,slices_to_tumour\np1,3,healthy,1\np1,4,diseased,0\np1,1,unknown,\n")
    dataset = open_dataset(table.root, None, CONFIG)
    assert [(i.slice, i.label) for i in dataset.items] == [(1, "unknown"), (3, "healthy"), (4, "diseased")]
    assert len(open_dataset(table.root, None, replace(CONFIG, min_slices_to_tumour=2))) == 2
    # The table counts along the third axis; along another it says nothing.
    assert len(open_dataset(table.root, None, replace(CONFIG, axis=0))) == 12
    for text, message in (
        ("p1,99,healthy", "slice 99 healthy, but there are 10 slices"),
        ("p1,4,healthy", "slice 4 healthy, but its mask marks voxels"),
        ("p1,4,ill", "label 'ill' is none of"),
        ("p1,four,healthy", "'four' is not a number"),
        ("p1,4,diseased\np1,4,diseased", "listed twice"),
    ):
        slices.write_text(f"patient_id,slice,label\n{text}\n")
        with pytest.raises(UsageError, match=message):
            open_dataset(table.root, None, CONFIG)


def test_statistics_are_of_the_whole_volume(brain: Callable[..., Table]) -> None:
    dataset = open_dataset(brain(), None, DataConfig(size=16, normalisation="percentile", percentiles=(0, 100)))
    assert {dataset.stats(i)["max"] for i in range(len(dataset))} == {200.0}
    healthy = dataset.image([i.slice for i in dataset.items].index(7))
    assert healthy.max() < 0.01  # 100 of 200: a plane's own maximum would give 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_native_planes_go_back_to_the_very_voxels(brain: Callable[..., Table], axis: int) -> None:
    table = brain()
    dataset = open_dataset(table, None, replace(CONFIG, axis=axis))
    raw = np.asarray(nib.load(table.root / "v.nii.gz").dataobj)
    seg = np.asarray(nib.load(table.root / "seg.nii.gz").dataobj) > 0
    rebuilt, marked = np.zeros_like(raw), np.zeros_like(seg)
    for i, item in enumerate(dataset.items):
        native = dataset.native(i)
        assert native.mask is not None
        put_plane(rebuilt, native.plane, item.slice or 0, axis, like=native.image)
        put_plane(marked, native.mask, item.slice or 0, axis, like=native.image)
        assert native.mask.any() == (item.label == "diseased")
    assert np.array_equal(rebuilt, raw)
    assert np.array_equal(marked, seg)


def test_masks_turn_with_their_image(brain: Callable[..., Table]) -> None:
    """On the working grid too: the bright lesion and its mask lie on the same pixels."""
    dataset = open_dataset(brain(), None, DataConfig(size=28, normalisation="percentile"))
    for i, item in enumerate(dataset.items):
        mask = dataset.mask(i)
        assert mask is not None
        if item.label == "diseased":
            image = dataset.image(i)[0]
            assert image[mask].mean() > image[~mask].max() - 0.6
            assert image[mask].min() > image[~mask].mean()


def test_masks_of_another_size_or_place_are_refused(brain: Callable[..., Table]) -> None:
    table = brain()
    save(table.root / "seg.nii.gz", np.zeros((12, 14, 9), np.uint8))
    with pytest.raises(UsageError, match="the mask is 12 x 14 x 9, the image 12 x 14 x 10"):
        open_dataset(table, None, CONFIG)
    moved = AFFINE.copy()
    moved[0, 3] = 30
    save(table.root / "seg.nii.gz", np.zeros((12, 14, 10), np.uint8), moved)
    with pytest.raises(UsageError, match="the mask lies up to 30 mm away"):
        open_dataset(table, None, CONFIG)


def test_a_volume_of_three_slices_is_no_colour_picture(tmp_path: Path) -> None:
    save(tmp_path / "healthy" / "v.nii", np.random.default_rng(0).uniform(1, 9, (20, 22, 3)).astype(np.float32))
    dataset = open_dataset(tmp_path, None, CONFIG)
    assert len(dataset) == 3
    assert dataset.native(0).plane.ndim == 2


def test_volumes_and_pictures_mix(brain: Callable[..., Table]) -> None:
    table = brain()
    Pil.fromarray(np.random.default_rng(1).integers(0, 255, (9, 9), dtype=np.uint8)).save(table.root / "x.png")
    both = replace(table, rows=(*table.rows, Row("x.png", "healthy", "p2")))
    dataset = open_dataset(both, None, CONFIG)
    assert dataset.images(range(len(dataset))).shape == (8, 1, 16, 16)
    assert dataset.items[-1].slice is None


def test_boxes_cannot_mark_volumes(brain: Callable[..., Table]) -> None:
    table = brain(mask=False)
    with pytest.raises(UsageError, match="a box cannot mark a volume"):
        open_dataset(replace(table, rows=(replace(table.rows[0], box="1,1,2,2"),)), None, CONFIG)


def test_an_empty_volume_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "healthy" / "v.nii", np.zeros((8, 8, 4), np.float32))
    assert {w.kind for w in check(tmp_path).warnings} >= {"constant", "empty"}
    with pytest.raises(UsageError, match=r"no image is left.*4 planes of volumes left out"):
        open_dataset(tmp_path, None, CONFIG)


def test_the_brats_excerpt_gives_its_published_planes(shared: Path) -> None:
    config = DataConfig(size=32, normalisation="foreground-median", select="modality=flair")
    dataset = open_dataset(shared / "brats2013", None, config)
    counts = dataset.counts()
    assert (counts["healthy"], counts["diseased"], counts["patients"], counts["annotated"]) == (199, 308, 4, 507)
    val = open_dataset(shared / "brats2013", "val", config)
    assert (val.counts()["healthy"], val.counts()["diseased"]) == (51, 76)


def test_a_dicom_series_is_one_case_along_its_frames(shared: Path, tmp_path: Path) -> None:
    source = shared / "dicom_samples" / "series_brain_128x88"
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "series").symlink_to(source)
    table = read_table(tmp_path)
    assert [r.path for r in table] == ["unknown/series"]
    dataset = open_dataset(table, None, CONFIG)
    assert len(dataset) == 17
    assert dataset.native(3).plane.shape == (128, 88)
    assert plane_axis(dataset.native(0).image, 2) == 0
    assert dataset.items[0].patient_id.startswith("p-")  # from the header, as a pseudonym
    assert np.isfinite(dataset.images(range(17))).all()
