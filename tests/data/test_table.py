from __future__ import annotations

import os
from pathlib import Path

import pytest

from healmap.data.table import Row, Table, read_table, write_table
from healmap.errors import UsageError

from .conftest import noise, write_png

PLAIN = 'path,label,patient_id,split,mask,box,age\na.png,healthy,p1,train,,,50\nb.png,diseased,p2,test,m.png,"1,2,3,4",61\n'


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace("healthy", " Healthy ").encode(),
        PLAIN.replace("\n", "\n\n").encode(),
        PLAIN.replace('"1,2,3,4"', "1|2|3|4").replace(",", ";").replace("1|2|3|4", "1,2,3,4").encode(),
    ],
    ids=["utf-8", "bom", "crlf", "utf-16", "spaces and case", "empty lines", "semicolons"],
)
def test_a_table_reads_the_same_in_every_dress(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(raw)
    table = read_table(tmp_path)
    assert [(r.path, r.label, r.patient_id, r.split) for r in table] == [
        ("a.png", "healthy", "p1", "train"), ("b.png", "diseased", "p2", "test")]  # fmt: skip
    assert table.rows[1].mask == "m.png"
    assert table.rows[1].box == "1,2,3,4"
    assert [r["age"] for r in table] == ["50", "61"]
    assert table.problems == ()
    assert table.columns == ("path", "label", "patient_id", "split", "mask", "box", "age")


def test_latin_1_names_and_bytes_find_their_files(tmp_path: Path) -> None:
    write_png(tmp_path / "café.png", noise(0))
    odd = os.fsencode(tmp_path) + b"/na\xefve.png"
    (tmp_path / "café.png").rename(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", odd)
    write_png(tmp_path / "café.png", noise(0))
    (tmp_path / "labels.csv").write_bytes("path,label\ncafé.png,healthy\nnaïve.png,healthy\n".encode("latin-1"))
    table = read_table(tmp_path)
    assert [table.file(r).exists() for r in table] == [True, True]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('path,label,note\na.png,healthy,"two\nlines"\nb.png,healthy,x\n')
    assert [r.line for r in read_table(tmp_path)] == [2, 4]


def test_ragged_rows_are_kept_and_reported(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\na,b.png,healthy\nc.png\n")
    table = read_table(tmp_path)
    assert len(table) == 2
    assert [line for line, _ in table.problems] == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [("label\nhealthy\n", "no column 'path'"), ("path,path\na,b\n", "'path' stands twice"), ("", "no column 'path'")],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path)


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_table(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no image found"):
        read_table(tmp_path)


def test_folders_give_label_split_patient_and_mask(tmp_path: Path) -> None:
    for k, name in enumerate(["train/healthy/p1/a.png", "train/diseased/b.png", "test/unknown/c.png", "other/d.png",
                              "masks/train/diseased/b.png", "masks/c.png"]):  # fmt: skip
        write_png(tmp_path / name, noise(k))
    rows = {r.path: r for r in read_table(tmp_path)}
    assert set(rows) == {"train/healthy/p1/a.png", "train/diseased/b.png", "test/unknown/c.png", "other/d.png"}
    a, b, c, d = (rows[n] for n in ("train/healthy/p1/a.png", "train/diseased/b.png", "test/unknown/c.png", "other/d.png"))
    assert (a.label, a.split, a.patient_id, a.mask) == ("healthy", "train", "p1", "")
    assert (b.label, b.split, b.patient_id, b.mask) == ("diseased", "train", "", "masks/train/diseased/b.png")
    assert (c.label, c.split, c.mask) == ("unknown", "test", "masks/c.png")
    assert (d.label, d.split) == ("unknown", "")


def test_a_path_of_two_classes_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "healthy" / "diseased" / "a.png", noise(0))
    with pytest.raises(UsageError, match="two classes"):
        read_table(tmp_path)


def test_writing_and_reading_back_keeps_everything(tmp_path: Path) -> None:
    extra = {"note": 'a "quoted", text\nof two lines'}
    rows = (Row("sub/a b.png", "healthy", "p", "train", "m.png", "1,2,3,4", extra), Row("ü.png", extra={"note": ""}))
    table = Table(tmp_path, rows, ("path", "label", "note"), "labels.csv")
    write_table(table, tmp_path / "labels.csv")
    back = read_table(tmp_path)
    assert [(r.path, r.label, r.patient_id, r.split, r.mask, r.box, dict(r.extra)) for r in back] == [
        (r.path, r.label, r.patient_id, r.split, r.mask, r.box, dict(r.extra)) for r in rows]  # fmt: skip
    write_table(table, tmp_path / "elsewhere" / "labels.csv")
    moved = read_table(tmp_path / "elsewhere")
    assert moved.file(moved.rows[0]).resolve() == (tmp_path / "sub" / "a b.png").resolve()


def test_select_filters_by_any_column(phantoms: Table) -> None:
    dark = phantoms.select(split="train", **{"class": "bright"})
    assert len(dark)
    assert {(r.split, r["class"]) for r in dark} == {("train", "bright")}
