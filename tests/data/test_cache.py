"""The store on disk: hit by content, rebuilt when damaged, safe between runs, flat in memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from healmap.data import cache as cache_module
from healmap.data import hashes as hashes_module
from healmap.data.cache import in_threads, open_store
from healmap.data.dataset import open_dataset
from healmap.data.hashes import Hashes
from healmap.data.preprocess import Preprocessing
from healmap.data.table import Table
from healmap.errors import UsageError
from healmap.experiment import DataConfig

from .conftest import write_png

CONFIG = DataConfig(size=16)


def stores(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often files are decoded."""
    calls: list[int] = []
    decode = cache_module.decode

    def counting(*arguments: object) -> object:
        calls.append(1)
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "decode", counting)
    return calls


def test_it_is_built_once_and_hit_by_content(phantoms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = builds(monkeypatch)
    where = tmp_path / "cache"
    seen: list[tuple[int, int]] = []
    first = open_dataset(phantoms, "val", CONFIG, cache=where, on_progress=lambda done, total: seen.append((done, total)))
    count = len(calls)
    assert count == len(first)
    assert seen[-1] == (count, count)
    shutil.copytree(phantoms.root, tmp_path / "elsewhere")
    open_dataset(tmp_path / "elsewhere", "val", replace(CONFIG, normalisation="none", batch_size=3), cache=where)
    assert len(calls) == count  # other folder, other intensity settings: the same store
    assert len(stores(where)) == 1
    open_dataset(phantoms, "val", replace(CONFIG, size=20), cache=where)
    assert len(calls) == 2 * count
    assert len(stores(where)) == 2


def test_arrays_are_mapped_compact_and_read_only(phantoms: Table, tmp_path: Path) -> None:
    dataset = open_dataset(phantoms, "train", CONFIG, cache=tmp_path)
    array = dataset.store.arrays["uint8"]
    assert isinstance(array, np.memmap)
    assert array.dtype == np.uint8
    assert array.shape == (len(dataset), 16, 16)
    assert not array.flags.writeable
    assert len(np.load(next(tmp_path.glob("*/uint8.npy")))) == len(dataset)  # plain .npy, readable by anybody


@pytest.mark.parametrize(
    "damage", ["index byte", "index gone", "cut array", "array gone", "hash gone", "empty folder", "other format"]
)
def test_a_damaged_store_is_found_and_rebuilt(
    phantoms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    before = open_dataset(phantoms, "val", CONFIG, cache=tmp_path).images(range(5))
    (folder,) = stores(tmp_path)
    index, array = folder / "index.json", folder / "uint8.npy"
    match damage:
        case "index byte":
            raw = bytearray(index.read_bytes())
            raw[len(raw) // 2] ^= 1
            index.write_bytes(raw)
        case "index gone":
            index.unlink()
        case "cut array":
            array.write_bytes(array.read_bytes()[:-1])
        case "array gone":
            array.unlink()
        case "hash gone":
            (folder / "index.sha256").unlink()
        case "empty folder":
            shutil.rmtree(folder)
            folder.mkdir()
        case "other format":
            index.write_text(json.dumps({**json.loads(index.read_text()), "format": 0}))
    calls = builds(monkeypatch)
    again = open_dataset(phantoms, "val", CONFIG, cache=tmp_path)
    assert len(calls) == len(again)
    assert np.array_equal(again.images(range(5)), before)
    assert len(stores(tmp_path)) == 1
    assert not list(tmp_path.glob(".building-*"))


def _open(arguments: tuple[Path, Path]) -> tuple[str, float]:
    dataset = open_dataset(arguments[0], "train", CONFIG, cache=arguments[1])
    return dataset.fingerprint, float(dataset.images(range(len(dataset))).sum())


def test_runs_that_share_it_agree(phantoms: Table, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.map(_open, [(phantoms.root, tmp_path)] * 3, chunksize=1)
    assert len(set(results)) == 1
    assert len(stores(tmp_path)) == 1
    assert not list(tmp_path.glob(".building-*"))


def test_the_later_of_two_builders_discards_its_copy(phantoms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, preprocessing = phantoms.select(split="val"), Preprocessing(CONFIG)
    publish = cache_module._publish

    def other_first(building: Path, final: Path, key: str) -> None:
        if not final.exists():
            shutil.copytree(building, final)
            (final / "winner").write_text("")
        publish(building, final, key)

    monkeypatch.setattr(cache_module, "_publish", other_first)
    open_store(table, preprocessing, tmp_path)
    (folder,) = stores(tmp_path)
    assert (folder / "winner").exists()
    assert not list(tmp_path.glob(".building-*"))


def test_nothing_is_left_when_building_fails(phantoms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(phantoms, "val", CONFIG, cache=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["hashes.sqlite"]


def test_old_remains_of_killed_runs_are_removed_and_young_ones_kept(phantoms: Table, tmp_path: Path) -> None:
    for name, age in (("old", 3 * 24 * 3600), ("young", 60)):
        folder = tmp_path / f".building-{name}"
        folder.mkdir()
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    open_dataset(phantoms, "val", CONFIG, cache=tmp_path)
    assert {p.name for p in tmp_path.glob(".building-*")} == {".building-young"}


def test_a_place_that_cannot_be_written_is_named(phantoms: Table, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write the cache.*HEALMAP_CACHE"):
        open_dataset(phantoms, "val", CONFIG, cache=tmp_path / "file" / "cache")


def test_the_environment_names_the_place(phantoms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALMAP_CACHE", str(tmp_path / "here"))
    open_dataset(phantoms, "val", CONFIG)
    assert len(stores(tmp_path / "here")) == 1
    assert not (tmp_path / "here").stat().st_mode & 0o077


def test_no_name_of_a_patient_or_file_is_written_into_it(phantoms: Table, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "healthy" / "phantom_0.png", np.zeros((9, 9), np.uint8))
    blank = open_dataset(tmp_path / "in", None, CONFIG, cache=tmp_path / "cache")
    assert "phantom_0.png: all values are 0" in str(blank.warnings[-1])
    open_dataset(phantoms, "val", CONFIG, cache=tmp_path / "cache")
    everything = b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert b"phantom_0" not in everything


def test_hashes_are_remembered_and_follow_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = tmp_path / "a.bin", list[Path]()
    sha256_file = hashes_module.sha256_file

    def counting(path: Path) -> str:
        reads.append(path)
        return sha256_file(path)

    monkeypatch.setattr(hashes_module, "sha256_file", counting)
    monkeypatch.setattr(hashes_module, "SETTLED_SECONDS", -1.0)

    def of() -> str:
        with Hashes(tmp_path / "cache") as hashes:
            return hashes.of(file)

    file.write_bytes(b"one")
    first = of()
    assert of() == first
    assert len(reads) == 1
    status = file.stat()
    file.write_bytes(b"two")  # same size, and the old time put back
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert of() != first
    assert len(reads) == 2
    monkeypatch.setattr(hashes_module, "SETTLED_SECONDS", 2.0)
    file.write_bytes(b"six")
    of()
    of()
    assert len(reads) == 4  # too young to be believed
    (tmp_path / "cache" / "hashes.sqlite").write_bytes(b"no database at all" * 99)
    assert of() == sha256_file(file)
    with pytest.raises(OSError, match="gone"), Hashes(tmp_path) as hashes:
        hashes.of(tmp_path / "gone")


def test_few_results_wait_at_any_time() -> None:
    """Memory stays flat because no more items are taken than a few per worker."""
    taken = []

    def note(item: int) -> int:
        taken.append(item)
        return item

    stream = in_threads(note, range(1000), workers=2)
    assert [next(stream) for _ in range(10)] == list(range(10))
    assert len(taken) <= 10 + 2 * 2
    assert list(stream) == list(range(10, 1000))
