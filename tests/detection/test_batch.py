from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap.detection.batch import Names, predict_many, sources
from healmap.detection.predictor import Predictor
from healmap.detection.thresholds import Threshold, Thresholds
from healmap.errors import UsageError


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    predictor = Predictor.load(make_run(tmp_path / "run", monkeypatch), device="cpu", batch_size=4)
    predictor.thresholds = Thresholds(image=Threshold(value=0.2), pixel=Threshold(value=0.1), scale=Threshold(value=0.5))
    return predictor


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_planes(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    Pil.fromarray(plane(0)).save(folder / "healthy.png")
    Pil.fromarray(plane(1, lesion=(10, 12, 12))).save(folder / "a" / "sick.png")
    Pil.fromarray(plane(2, shape=(60, 33)).astype(np.uint16) * 257).save(folder / "a" / "deep.tif")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (folder / "notes.txt").write_text("not an image")
    out = tmp_path / "out"
    assert predict_many(predictor, folder, out) == {"done": 3, "failed": 1, "slices": 0}
    rows = {row["path"]: row for row in rows_of(out)}
    assert list(rows) == sorted(rows)
    assert rows["a/sick.png"]["call"] == "diseased"
    assert rows["healthy.png"]["call"] == "healthy"
    assert float(rows["a/sick.png"]["score"]) == pytest.approx(0.394, abs=0.02)
    assert rows["broken.png"]["score"] == ""
    assert "broken.png" in rows["broken.png"]["error"]
    assert all(row["patient"] == "" for row in rows.values())
    scale = json.loads((out / "maps" / "a" / "sick.json").read_text())
    stored = np.asarray(Pil.open(out / "maps" / "a" / "sick.png")).astype(float) * scale["scale"] + scale["offset"]
    want = predictor.predict(folder / "a" / "sick.png")
    np.testing.assert_allclose(stored, want.anomaly_map, atol=scale["scale"])
    np.testing.assert_array_equal(np.asarray(Pil.open(out / "masks" / "a" / "sick.png")), want.mask * np.uint8(255))
    healed = np.asarray(Pil.open(out / "healed" / "a" / "sick.png"))
    assert healed.dtype == np.uint8
    assert healed[16, 18] in (127, 128)
    assert Pil.open(out / "overlays" / "a" / "deep.png").size[1] >= 256
    assert Pil.open(out / "healed" / "a" / "deep.png").size == (33, 60)


def test_a_volume_comes_back_as_nifti_on_the_same_grid(predictor: Predictor, tmp_path: Path) -> None:
    array = np.zeros((20, 24, 6), np.uint8)
    array[2:18, 2:20, 1:5] = 60
    array[5:12, 6:14, 2] = 240
    affine = np.array([[0, 1.5, 0, 5], [-1.5, 0, 0, 7], [0, 0, 4, -9], [0, 0, 0, 1.0]])
    source = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(array, affine), source)
    out = tmp_path / "out"
    assert predict_many(predictor, source, out) == {"done": 1, "failed": 0, "slices": 4}
    written = nib.load(out / "maps" / "scan.nii.gz")
    np.testing.assert_allclose(written.affine, affine)
    assert written.shape == array.shape
    assert written.get_data_dtype() == np.float32
    values = written.get_fdata()
    assert values[7:10, 8:12, 2].min() > 0.3
    assert values[..., [0, 1, 3, 4, 5]].max() == 0
    for folder in ("healed", "masks"):
        np.testing.assert_allclose(nib.load(out / folder / "scan.nii.gz").affine, affine)
    rows = rows_of(out)
    assert [row["slice"] for row in rows] == ["1", "2", "3", "4", ""]
    assert float(rows[-1]["score"]) == max(float(row["score"]) for row in rows[:-1])
    assert (out / "overlays" / "scan.png").is_file()


def test_a_table_names_its_patients_and_its_missing_files(predictor: Predictor, tmp_path: Path) -> None:
    Pil.fromarray(plane(0)).save(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_text("path,label,patient_id\nx.png,unknown,=cmd()\ny.png,unknown,p2\n")
    counts = predict_many(predictor, tmp_path / "labels.csv", tmp_path / "out")
    assert (counts["done"], counts["failed"]) == (1, 1)
    rows = rows_of(tmp_path / "out")
    assert [row["patient"] for row in rows] == ["'=cmd()", "p2"]  # no spreadsheet runs it
    assert rows[1]["error"] != ""


def test_options_leave_out_overlays_and_write_npy(predictor: Predictor, tmp_path: Path) -> None:
    Pil.fromarray(plane(0)).save(tmp_path / "x.png")
    predict_many(predictor, [tmp_path / "x.png"], tmp_path / "out", npy=True, overlays=False)
    assert np.load(tmp_path / "out" / "maps" / "x.npy").shape == (48, 40)
    assert not (tmp_path / "out" / "overlays").exists()


def test_one_impossible_answer_stops_no_other(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(6):
        Pil.fromarray(plane(k)).save(tmp_path / f"{k}.png")
    heal = type(predictor.method).heal
    marked = np.asarray(Pil.open(tmp_path / "3.png")).astype(float).mean()

    def broken(self: object, image):  # type: ignore[no-untyped-def]
        out = heal(self, image)  # type: ignore[arg-type]
        for k in range(len(image)):
            if abs(float(image[k].mean()) * 127.5 + 127.5 - marked * 40 / 48) < 1e-2:
                out[k] = float("nan")
        return out

    monkeypatch.setattr(type(predictor.method), "heal", broken)
    counts = predict_many(predictor, [tmp_path / f"{k}.png" for k in range(6)], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert (counts["done"], counts["failed"]) == (5, 1)
    assert "not a number" in rows[3]["error"]


def test_a_file_with_nan_is_listed_as_failed(predictor: Predictor, tmp_path: Path) -> None:
    import tifffile

    for k, value in enumerate((50, np.nan)):
        picture = plane(k).astype(np.float32)
        picture[5, 5] = value
        tifffile.imwrite(tmp_path / f"{k}.tif", picture)
    counts = predict_many(predictor, [tmp_path / "0.tif", tmp_path / "1.tif"], tmp_path / "out")
    assert (counts["done"], counts["failed"]) == (1, 1)
    assert "1 of 1920 values are NaN" in rows_of(tmp_path / "out")[1]["error"]


def test_nothing_to_do_is_an_error_and_writes_nothing(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere.png"):
        with pytest.raises(UsageError):
            predict_many(predictor, path, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_names_never_meet_and_never_leave_the_folder() -> None:
    names = Names()
    given = ["a/x.png", "a/x.jpg", "a/X.png", "a/x.nii.gz", "../../etc/x.png", "/abs/y.png", "case.1.png", "a/x.png"]
    got = [str(names.of(name)) for name in given]
    assert got == ["a/x", "a/x.jpg", "a/X.png", "a/x.nii.gz", "etc/x", "abs/y", "case.1", "a/x.png-2"]
    assert len({g.lower() for g in got}) == len(got)


def test_sources_keep_the_order_given(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Pil.fromarray(plane()).save(tmp_path / name)
    assert [s.name for s in sources(tmp_path)] == ["a.png", "b.png"]
    assert [s.name for s in sources([tmp_path / "b.png", tmp_path / "a.png"])] == ["b.png", "a.png"]


def test_a_method_that_needs_the_class(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(predictor.method), "class_at_inference", True)
    folder = tmp_path / "in"
    for label in ("healthy", "diseased"):
        (folder / label).mkdir(parents=True)
        Pil.fromarray(plane(len(label))).save(folder / label / "a.png")
    (folder / "labels.csv").write_text("path,label\nhealthy/a.png,healthy\ndiseased/a.png,diseased\n")
    with pytest.raises(UsageError, match="known to be diseased") as refused:
        predict_many(predictor, folder / "diseased", tmp_path / "no")
    assert "--assume-diseased" in refused.value.hint
    assert not (tmp_path / "no").exists()
    assert predict_many(predictor, folder, tmp_path / "out") == {"done": 1, "failed": 1, "slices": 0}
    healthy, diseased = rows_of(tmp_path / "out")
    assert "known to be diseased" in healthy["error"]
    assert diseased["score"]
    assert predict_many(predictor, folder, tmp_path / "all", assume_diseased=True)["done"] == 2
