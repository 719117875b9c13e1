"""The shared sample files come out as their index says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from healmap.errors import DecoderMissingError, UnreadableError
from healmap.io import find_images, kind_of, pixel_hash, read_image, read_series
from healmap.io.dicom import read_dicom_stored

# Lossy JPEG: decoders may round differently (ITU-T T.83 allows one level); the index was made with another one than ours.
ONE_LEVEL = {"single/chest_monochrome2_jpeg.dcm", "single/chest_relabelled_monochrome1.dcm"}


def index(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_dicom_row_comes_out_as_listed(shared: Path) -> None:
    folder, wrong = shared / "dicom_samples", []
    for row in index(folder):
        path = folder / row["path"]
        try:
            stored, image = read_dicom_stored(path), read_image(path)
        except UnreadableError as error:
            if row["outcome"] == "pixels decode" or error.where != str(path):
                wrong.append((row["path"], str(error)))
            continue
        low, high = (int(v) for v in row["value_range"].split("..")) if row["value_range"] else (None, None)
        slack = 1 if row["path"] in ONE_LEVEL else 0
        facts = (
            row["outcome"] == "pixels decode"
            and abs(int(stored.min()) - low) <= slack
            and abs(int(stored.max()) - high) <= slack,
            image.shape[-2:] == (int(row["rows"]), int(row["columns"])),
            image.colour == (row["samples"] == "3" or row["photometric"] == "PALETTE COLOR"),
            (image.shape[0] if image.is_volume else 1) == int(row["frames"]),
            (stored.dtype.kind == "i") == (row["signed"] == "1"),
            image.modality == row["modality"],
            image.about["photometric"] == row["photometric"],
        )
        if not all(facts):
            wrong.append((row["path"], facts))
    assert not wrong


def test_the_faults_are_named(shared: Path) -> None:
    folder = shared / "dicom_samples" / "single"
    for name, words in {
        "MR_truncated.dcm": "cut short: 8130 of 8192 bytes", "rtplan.dcm": "holds no pixels", "reportsi.dcm": "of the kind SR",
        "no_meta.dcm": "not a PNG, JPEG, TIFF, NIfTI or DICOM file", "meta_missing_tsyntax.dcm": "no transfer syntax",
        "badVR.dcm": "NumberOfFrames",
        "JPEG-lossy.dcm": "JPEG stream is flawed", "JPEG2000-embedded-sequence-delimiter.dcm": "1024 x 256",
    }.items():  # fmt: skip
        with pytest.raises(UnreadableError, match=words) as caught:
            read_image(folder / name)
        assert not isinstance(caught.value, DecoderMissingError)


def test_seven_encodings_of_one_slice_are_identical(shared: Path) -> None:
    paths = list((shared / "dicom_samples" / "single").glob("MR_small*.dcm"))
    arrays = [read_image(path).array for path in paths]
    assert len(arrays) == 7
    assert all(array.dtype == np.int16 and np.array_equal(array, arrays[0]) for array in arrays)
    assert len({pixel_hash(array) for array in arrays}) == 1


def test_a_relabelled_film_is_turned_over(shared: Path) -> None:
    plain, turned = (read_image(shared / "dicom_samples/single" / f"chest_{name}.dcm").array
                     for name in ("monochrome2_jpeg", "relabelled_monochrome1"))  # fmt: skip
    np.testing.assert_array_equal(turned, 255 - plain)


def test_jpeg_lossless_without_gdcm_names_the_extra(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from healmap.io.dicom_parse import load_pydicom

    load_pydicom()
    monkeypatch.setattr("pydicom.pixels.decoders.gdcm.HAVE_GDCM", False)
    for name in ("SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm"):
        with pytest.raises(DecoderMissingError, match=r"needs the package python-gdcm.*healmap\[gdcm\]"):
            read_image(shared / "dicom_samples/single" / name)


def test_sample_series(shared: Path) -> None:
    folder = shared / "dicom_samples"
    brain = read_image(folder / "series_brain_128x88")
    assert brain.shape == (17, 128, 88)
    assert brain.spacing == (2, 2, 2)
    assert brain.affine is not None
    assert len(brain.sources) == 17
    gaps = read_image(folder / "series_ct_16x16")  # four of many slices, and a segmentation, which is not taken for one
    assert gaps.shape == (4, 16, 16)
    assert gaps.affine is None
    assert any("missing" in note for note in gaps.notes)
    assert [image.shape for image in read_series(folder / "series_mr_pair")] == [(2, 256, 256)]
    found = find_images(folder)
    assert folder / "series_brain_128x88" in found
    assert folder / "single/CT_small.dcm" in found
    assert folder / "single/reportsi.dcm" not in found
    assert found == sorted(found)


def test_every_nifti_row_comes_out_as_listed(shared: Path) -> None:
    for row in index(shared / "nifti_samples"):
        path = shared / "nifti_samples" / row["path"]
        assert kind_of(path) == "nifti"
        image = read_image(path)
        low, high = (float(v) for v in row["value_range"].split(".."))
        assert "x".join(str(n) for n in image.array.shape) == row["shape"], path
        np.testing.assert_allclose(image.spacing, [float(v) for v in row["voxel_mm"].split("x")], rtol=1e-5)
        np.testing.assert_allclose([image.array.min(), image.array.max()], [low, high], rtol=5e-6)
        assert image.array.dtype == np.dtype(row["dtype"].lstrip(">")) or image.array.dtype == np.float32  # scaled
        assert image.array.dtype.isnative
        assert "".join(aff2axcodes(image.affine)) == row["axes"]
        assert image.header["magic"].tobytes()[:3] == {"1": b"n+1", "2": b"n+2"}[row["version"]]
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (int(row["qform"]), int(row["sform"]))
