"""All faults at once, nothing dropped silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from healmap.data.check import check
from healmap.data.dataset import open_dataset
from healmap.data.faults import boxes
from healmap.data.table import Table
from healmap.errors import UsageError
from healmap.experiment import DataConfig

from .conftest import noise, write_png


def test_every_fault_is_listed_at_once(faulty: Path) -> None:
    report = check(faulty)
    found = {(f.kind, f.where.split(", ")[-1]) for f in report.faults}
    assert {
        ("missing", "gone.png"), ("duplicate", "good.png"), ("conflict", "sick.png"), ("unreadable", "cut.png"),
        ("unreadable", "nan.tif"), ("leak", "labels.csv patient p1"), ("label", "marked.png"), ("split", "marked.png"),
        ("unreadable", "marked.png"), ("mask", "marked.png"), ("box", "marked.png"), ("leak", "labels.csv"),
    } <= found  # fmt: skip
    texts = [str(f) for f in report.faults]
    assert any("label 'ill'" in t and "line 10" in t for t in texts)
    assert any("split 'training'" in t for t in texts)
    assert any("no split although other rows have one" in t for t in texts)
    assert any("the mask is 5 x 5, the image 20 x 24" in t for t in texts)
    assert any("no finite value" in t for t in texts)
    assert not report.ok
    lines = list(report.lines())
    assert sum(line.startswith("fault ") for line in lines) == len(report.faults)
    assert all("\n" not in line for line in lines)


def test_opening_refuses_with_the_list(faulty: Path) -> None:
    with pytest.raises(UsageError, match=r"\d+ faults in the data: \[1\] .*gone\.png.*sick\.png.*p1"):
        open_dataset(faulty, "train", DataConfig(size=16))


def test_opening_lists_the_first_twenty_and_the_number(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"f{k}.png,healthy\n" for k in range(33)))
    with pytest.raises(UsageError, match=r"^33 faults .*f19\.png.*and 13 more") as caught:
        open_dataset(tmp_path, None, DataConfig(size=16))
    assert "f20.png" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_faults_of_pixels_are_collected_over_all_files(tmp_path: Path) -> None:
    for k in range(3):
        write_png(tmp_path / "healthy" / f"{k}.png", noise(k))
    for name in ("a", "b"):
        (tmp_path / "healthy" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(UsageError, match=r"2 faults .*a\.png.*b\.png"):
        open_dataset(tmp_path, None, DataConfig(size=16))


def test_sound_data_pass_with_counts(phantoms: Table) -> None:
    report = check(phantoms.root)
    assert report.ok
    assert report.images == len(phantoms)
    assert report.patients == 20
    for (split, label), (images, patients, annotated) in report.counts.items():
        rows = [r for r in phantoms if (r.split, r.label) == (split, label)]
        assert images == len(rows)
        assert patients == len({r.patient_id for r in rows})
        assert annotated == (len(rows) if label == "diseased" else 0)


def test_missing_patients_are_a_warning(tmp_path: Path) -> None:
    write_png(tmp_path / "healthy" / "a.png", noise(0))
    report = check(tmp_path)
    assert report.ok
    assert [w.kind for w in report.warnings] == ["patient"]
    dataset = open_dataset(tmp_path, None, DataConfig(size=16))
    assert dataset.items[0].patient_id == "healthy/a.png"


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """One image with 49 values that are not finite."""
    import tifffile

    picture = noise(0).astype(np.float32) - 100
    picture[3:5] = np.nan
    picture[7, 7] = np.inf
    (tmp_path / "healthy").mkdir()
    tifffile.imwrite(tmp_path / "healthy" / "a.tif", picture)
    return tmp_path


def test_an_image_with_nan_is_refused_by_name(holed: Path) -> None:
    (fault,) = check(holed).faults
    for text in ("a.tif", "49 of 480 values are NaN", "data.nonfinite=lowest"):
        assert text in str(fault)
    with pytest.raises(UsageError, match="49 of 480 values are NaN"):
        open_dataset(holed, None, DataConfig(size=16))


def test_where_they_are_allowed_such_values_never_reach_a_network(holed: Path) -> None:
    config = DataConfig(size=16, nonfinite="lowest")
    report = check(holed, config)
    assert report.ok
    assert "49 of 480 values are not finite" in str(report.warnings[-1])
    for name in ("percentile", "foreground-median", "zscore", "window", "none"):
        dataset = open_dataset(holed, None, replace(config, normalisation=name))
        assert np.isfinite(dataset.image(0)).all()
    with pytest.raises(UsageError, match="49 of 480"):  # the stored images do not open a back door
        open_dataset(holed, None, DataConfig(size=16))


def test_equal_pixels_with_contrary_labels_are_a_conflict(tmp_path: Path) -> None:
    write_png(tmp_path / "healthy" / "a.png", noise(0))
    write_png(tmp_path / "diseased" / "b.png", noise(0))
    assert [f.kind for f in check(tmp_path).faults] == ["conflict"]


def test_a_healthy_image_with_a_marked_lesion_is_a_fault(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(0))
    write_png(tmp_path / "m.png", np.ones((20, 24), np.uint8))
    (tmp_path / "labels.csv").write_text("path,label,mask\na.png,healthy,m.png\n")
    assert "labelled healthy, but 480 pixels" in str(check(tmp_path).faults[0])


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,0,4", "1,2,3,-4", "1,2,3,nan", "1,2,3,4;5"])
def test_boxes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        boxes(text)


def test_boxes_are_read() -> None:
    assert boxes("1.5,2,3,4; 5,6,7,8") == [(1.5, 2, 3, 4), (5, 6, 7, 8)]
