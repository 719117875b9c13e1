"""The same patient or the same pixels in two splits, whatever the file is called and however it is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from healmap.data.check import check
from healmap.data.dataset import Dataset, open_dataset
from healmap.data.leaks import Member, find_leaks, refuse_leaks
from healmap.data.table import Row, Table, write_table
from healmap.errors import UsageError
from healmap.experiment import DataConfig

from .conftest import noise, write_png

CONFIG = DataConfig(size=16)


def opened(folder: Path, rows: list[Row], config: DataConfig = CONFIG) -> dict[str, Dataset]:
    write_table(Table(folder, tuple(rows)), folder / "labels.csv")
    return {s: open_dataset(folder, s, config) for s in ("train", "test")}


def test_sound_splits_pass(phantoms: Table) -> None:
    assert refuse_leaks({s: open_dataset(phantoms, s, CONFIG) for s in ("train", "val", "test")}, allow=False) == []


@pytest.mark.parametrize("disguise", ["other name", "16 bit", "other byte order", "other compression", "float"])
def test_the_same_pixels_are_found_in_every_disguise(tmp_path: Path, disguise: str) -> None:
    picture = noise(0)
    write_png(tmp_path / "a.png", picture)
    name = "b.png" if disguise == "other name" else "b.tif"
    match disguise:
        case "other name":
            write_png(tmp_path / name, picture)
        case "16 bit":
            tifffile.imwrite(tmp_path / name, picture.astype(np.uint16))
        case "other byte order":
            tifffile.imwrite(tmp_path / name, picture.astype(">u2"), byteorder=">")
        case "other compression":
            Pil.fromarray(picture).save(tmp_path / name, compression="tiff_lzw")
        case "float":
            tifffile.imwrite(tmp_path / name, picture.astype(np.float32))
    sets = opened(tmp_path, [Row("a.png", "healthy", "p1", "train"), Row(name, "healthy", "p2", "test")])
    with pytest.raises(UsageError, match=r"share 1 pictures: the same pixels are in train \(a.png\), test \(b"):
        refuse_leaks(sets, allow=False)
    notes = refuse_leaks(sets, allow=True)
    assert len(notes) == 1
    assert "leak allowed by the user" in notes[0]
    assert any(f.kind == "leak" for f in check(tmp_path).faults)


def test_one_changed_pixel_is_another_picture(tmp_path: Path) -> None:
    """The check can fail to find: a hash that ignored the pixels would not pass here."""
    picture = noise(0)
    write_png(tmp_path / "a.png", picture)
    picture[3, 3] ^= 1
    write_png(tmp_path / "b.png", picture)
    assert (
        refuse_leaks(opened(tmp_path, [Row("a.png", "healthy", "p1", "train"), Row("b.png", "healthy", "p2", "test")]), False)
        == []
    )


def test_a_patient_in_two_splits_stops_opening_unless_allowed(tmp_path: Path) -> None:
    rows = [Row("a.png", "healthy", "p1", "train"), Row("b.png", "healthy", "p1", "test")]
    for k, row in enumerate(rows):
        write_png(tmp_path / row.path, noise(k))
    with pytest.raises(UsageError, match=r"patient p1.*train \(line 2\), test \(line 3\)"):
        opened(tmp_path, rows)
    sets = opened(tmp_path, rows, DataConfig(size=16, allow_leak=True))
    with pytest.raises(UsageError, match="share 1 patients: patient p1"):
        refuse_leaks(sets, allow=False)
    assert "patient p1" in refuse_leaks(sets, allow=True)[0]


def test_two_datasets_opened_apart_are_compared_by_their_role(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_png(tmp_path / name / "healthy" / "a.png", noise(0))
    sets = {"train": open_dataset(tmp_path / "one", None, CONFIG), "test": open_dataset(tmp_path / "two", None, CONFIG)}
    with pytest.raises(UsageError, match="same pixels"):
        refuse_leaks(sets, allow=False)


def test_constant_pictures_and_nameless_patients_are_no_leak(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    write_png(tmp_path / "b.png", np.zeros((9, 9), np.uint8))
    assert (
        refuse_leaks(opened(tmp_path, [Row("a.png", "healthy", "", "train"), Row("b.png", "healthy", "", "test")]), False) == []
    )


def test_members_without_a_split_are_passed_over() -> None:
    assert find_leaks([Member("", "a", "p", "x"), Member("train", "b", "p", "x")]) == []
    leaks = find_leaks([Member("val", "a", "p", "x"), Member("train", "b", "p", "x"), Member("test", "c", "q", "x")])
    assert [(leak.kind, len(leak.members)) for leak in leaks] == [("patient", 2), ("pixels", 3)]
