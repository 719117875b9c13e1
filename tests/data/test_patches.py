from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from healmap.api import make_patches as through_the_api
from healmap.cli.main import main
from healmap.data import patches
from healmap.data.dataset import open_dataset
from healmap.data.loader import Loader
from healmap.data.patches import Counts, make_patches, patched
from healmap.data.table import Row, Table, read_table, write_table
from healmap.data.twins import twin_image
from healmap.errors import UnreadableError, UsageError
from healmap.experiment import DataConfig
from healmap.io.read import read_image
from healmap.types import Needs
from tests.data.conftest import noise, write_png

FEW = Counts(10, 7, 3, 2, 2, 5, 5)


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def kinds(table: Table) -> Counter[tuple[str, str, str]]:
    return Counter((r.split, r.label, r["truth_label"]) for r in table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 grey images without labels."""
    root = tmp_path_factory.mktemp("source")
    for k in range(48):
        write_png(root / f"face_{k:02d}.png", noise(k))
    return root


def test_the_square_becomes_its_mean_per_channel_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    for image in (
        noise(1, (30, 20, 3)),
        noise(2, (30, 20)).astype(np.uint16) * 200,
        rng.normal(size=(30, 20)).astype(np.float32),
    ):
        before = image.copy()
        out, mask = patched(image, 4, 9, 8)
        assert np.array_equal(image, before)
        assert out.dtype == image.dtype
        assert mask.sum() == 64
        assert mask[4:12, 9:17].all()
        assert np.array_equal(out[~mask], image[~mask])
        for c in range(image.shape[2]) if image.ndim == 3 else [...]:
            inside = out[..., c][mask] if image.ndim == 3 else out[mask]
            mean = (image[..., c] if image.ndim == 3 else image)[mask].astype(float).mean()
            assert np.ptp(inside) == 0
            assert abs(float(inside[0]) - mean) <= (0.5 if image.dtype.kind == "u" else 1e-6)


def test_parts_masks_and_twins(folder: Path, tmp_path: Path) -> None:
    table = make_patches(folder, tmp_path / "set", side=6, counts=FEW)
    assert kinds(table) == {
        ("train", "healthy", "healthy"): 10, ("train", "unknown", "healthy"): 7, ("train", "unknown", "diseased"): 3,
        ("val", "healthy", "healthy"): 2, ("val", "diseased", "diseased"): 2,
        ("test", "healthy", "healthy"): 5, ("test", "diseased", "diseased"): 5,
    }  # fmt: skip
    assert len({r["source"] for r in table}) == len(table) == 34
    places = []
    for row in read_table(tmp_path / "set"):
        image, original = (np.asarray(Pil.open(p)) for p in (table.root / row.path, folder / row["source"]))
        ill = row["truth_label"] == "diseased"
        assert (row.mask != "") == (row.label == "diseased")  # what is hidden stays out of this column
        assert (row["truth_mask"] != "") == (ill and row.label == "unknown")
        assert (row["twin"] != "") == (row.label == "diseased")
        if row["twin"]:
            assert np.array_equal(np.asarray(Pil.open(table.root / row["twin"])), original)
        if not ill:
            assert np.array_equal(image, original)
            continue
        mask = np.asarray(Pil.open(table.root / (row.mask or row["truth_mask"]))) > 0
        top, left = np.argwhere(mask).min(0)
        assert np.array_equal(image, patched(original, top, left, 6)[0])
        places.append((top, left))
    assert len(set(places)) > 7
    facts = json.loads((table.root / "dataset.json").read_text())
    assert (facts["side"], facts["images"]["train unknown diseased"]) == (6, 3)


def test_squares_lie_anywhere_inside(tmp_path: Path) -> None:
    for k in range(80):
        write_png(tmp_path / "in" / f"{k}.png", noise(k, (9, 8)))
    table = make_patches(tmp_path / "in", tmp_path / "out", side=6, counts=Counts.of((1, 0, 60, 1, 1)))
    masks = [np.asarray(Pil.open(table.root / r["truth_mask"])) for r in table if r["truth_mask"]]
    assert {tuple(np.argwhere(m).min(0)) for m in masks} == {(i, j) for i in range(4) for j in range(3)}


def test_equal_arguments_give_equal_bytes_whatever_the_threads(folder: Path, tmp_path: Path) -> None:
    for name, workers, seed in (("a", 1, 3), ("b", 3, 3), ("c", 1, 4)):
        make_patches(folder, tmp_path / name, side=6, seed=seed, counts=FEW, workers=workers)
    a, b, c = (digest(tmp_path / n) for n in "abc")
    assert a == b != c


def test_the_papers_counts_are_the_default_and_scale_down(folder: Path, tmp_path: Path) -> None:
    assert astuple(Counts())[:3] == (5000, 3500, 1500)
    assert astuple(Counts())[5:] == (2500, 2500)
    said: list[str] = []
    table = make_patches(folder, tmp_path / "set", side=6, tell=said.append)
    assert kinds(table) == {
        ("train", "healthy", "healthy"): 15, ("train", "unknown", "healthy"): 10, ("train", "unknown", "diseased"): 4,
        ("val", "healthy", "healthy"): 1, ("val", "diseased", "diseased"): 1,
        ("test", "healthy", "healthy"): 7, ("test", "diseased", "diseased"): 7,
    }  # fmt: skip
    assert any("scaled down" in s for s in said)
    assert any("48 are taken as healthy" in s for s in said)


def test_a_large_source_gets_the_papers_counts() -> None:
    rows = tuple(Row(f"{k:06d}.jpg", patient_id=f"p{k // 2}") for k in range(20_000))
    parts, notes = patches._divide(Table(Path("."), rows), None, 0)
    assert tuple(len(rows) for _, rows in parts) == astuple(Counts())
    assert not any("scaled" in n for n in notes)


def test_splits_patients_and_labels_of_the_source_are_respected(folder: Path, tmp_path: Path) -> None:
    rows = [
        Row(f"face_{k:02d}.png", "diseased" if k % 8 == 0 else "healthy", f"p{k // 4}", "train" if k < 32 else "test")
        for k in range(48)
    ]
    write_table(Table(folder, tuple(rows)), tmp_path / "labels.csv")
    said: list[str] = []
    table = make_patches(tmp_path / "labels.csv", tmp_path / "set", side=6, tell=said.append)
    own = {r.path: r for r in read_table(tmp_path / "labels.csv")}
    for row in table:
        source = own[row["source"]]
        assert (source.label, source.split, source.patient_id) == ("healthy", row.split, row.patient_id)
    assert any("no validation split" in s for s in said)
    assert any("only the 42 healthy of 48" in s for s in said)


def test_without_splits_patients_are_not_divided(folder: Path, tmp_path: Path) -> None:
    rows = tuple(Row(f"face_{k:02d}.png", "healthy", f"p{k // 3}") for k in range(48))
    table = make_patches(Table(folder, rows), tmp_path / "set", side=6)
    splits: dict[str, set[str]] = {}
    for row in table:
        splits.setdefault(row.patient_id, set()).add(row.split)
    assert all(len(s) == 1 for s in splits.values())


def test_resizing_comes_first_and_keeps_the_middle(tmp_path: Path) -> None:
    for k in range(12):
        write_png(tmp_path / "in" / f"{k}.png", noise(k, (60, 40, 3)))
    table = make_patches(tmp_path / "in", tmp_path / "out", side=8, size=20, counts=Counts.of((2, 1, 1, 1, 1)))
    for row in table:
        if row["truth_label"] == "healthy":
            middle = Pil.open(tmp_path / "in" / row["source"]).crop((0, 10, 40, 50)).resize((20, 20), Pil.Resampling.BILINEAR)
            assert np.array_equal(np.asarray(Pil.open(table.root / row.path)), np.asarray(middle))
        else:
            mask = np.asarray(Pil.open(table.root / (row.mask or row["truth_mask"])))
            assert (mask > 0).sum() == 64


def test_every_kind_of_pixel_survives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for k in range(12):
        array = [
            noise(k, (16, 16, 3)),
            noise(k, (16, 16)).astype(np.uint16) * 257,
            rng.normal(size=(16, 16)).astype(np.float32),
        ][k % 3]
        tifffile.imwrite(tmp_path / "in" / f"{k}.tif", array, photometric="rgb" if array.ndim == 3 else "minisblack")
    table = make_patches(tmp_path / "in", tmp_path / "out", side=4, counts=Counts.of((4, 1, 1, 3, 3)))
    for row in table:
        image, original = (read_image(p).array for p in (table.root / row.path, tmp_path / "in" / row["source"]))
        assert (image.dtype, image.shape) == (original.dtype, original.shape)
        assert np.array_equal(image, original) == (row["truth_label"] == "healthy")


def test_what_is_made_trains_and_evaluates(folder: Path, tmp_path: Path) -> None:
    table = make_patches(folder, tmp_path / "set", side=6, counts=FEW)
    config = DataConfig(size=24, normalisation="none", fit="stretch")
    loader = Loader(open_dataset(table, "train", config), Needs.MIXED_AND_HEALTHY, batch_size=4, seed=0)
    assert loader.describe() == "set A: 10 unknown, set B: 10 healthy"
    test = open_dataset(table, "test", config)
    ill = [i for i, item in enumerate(test.items) if item.label == "diseased"]
    for i in ill:
        changed = np.abs(test.image(i) - twin_image(test, i))[0]
        assert changed[test.mask(i)].mean() > 10 * changed[~test.mask(i)].mean()


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["data", "make", "patches", str(folder), str(tmp_path / "set"), "--side", "6"]
    assert main([*words, "--counts", "10,7,3,5,5"]) == 0
    assert "30 images" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert "no faults" in capsys.readouterr().out
    assert main(words) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "21"], "a square of 21 pixels does not fit into 20 x 24"),
        (["--side", "0"], "side 0"),
        (["--size", "16"], "side 40, size 16"),
        (["--side", "6", "--counts", "5000,3500,1500,2500,2500"], "too few images"),
        (["--side", "6", "--counts", "1,2,3"], "not five or seven"),
        (["--side", "6", "--counts", "0,1,1,1,1"], "nothing to learn from"),
        (["--side", "6", "--seed", "-1"], "seed -1"),
    ],
)
def test_strange_requests_are_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    assert main(["data", "make", "patches", str(folder), str(tmp_path / "set"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_counts_that_are_no_numbers_are_wrong_usage(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", "make", "patches", str(folder), str(tmp_path / "set"), "--counts", "many"])
    assert stop.value.code == 2
    assert "'many' is not a list of whole numbers" in capsys.readouterr().err


def test_sources_that_cannot_serve(tmp_path: Path) -> None:
    write_png(tmp_path / "ill" / "diseased" / "a.png", noise(0))
    with pytest.raises(UsageError, match="no image is healthy"):
        through_the_api(tmp_path / "ill", tmp_path / "out", side=4)
    for k in range(3):
        write_png(tmp_path / "few" / f"{k}.png", noise(k))
    with pytest.raises(UsageError, match="too few images"):
        through_the_api(tmp_path / "few", tmp_path / "out", side=4)
    for k in range(8):
        write_png(tmp_path / "broken" / f"{k}.png", noise(k)).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadableError):
        through_the_api(tmp_path / "broken", tmp_path / "out", side=4, counts=(2, 1, 1, 1, 1))
    (tmp_path / "deep").mkdir()
    for k in range(8):
        tifffile.imwrite(tmp_path / "deep" / f"{k}.tif", np.stack([noise(k), noise(k + 9)]), photometric="minisblack")
    with pytest.raises(UsageError, match="a volume"):
        through_the_api(tmp_path / "deep", tmp_path / "out", side=4, counts=(2, 1, 1, 1, 1))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".healmap*"))
