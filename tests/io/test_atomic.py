"""Files are whole or absent, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from healmap.errors import WriteError
from healmap.io import remove_stale, replacing, safe_cell, sha256_file, write_bytes, write_json, write_text


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".healmap")]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "a.txt", "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert leftovers(path.parent) == []
    write_bytes(path, b"next")
    assert path.read_bytes() == b"next"


def test_the_temporary_file_keeps_the_suffixes(tmp_path: Path) -> None:
    with replacing(tmp_path / ("x" * 240 + ".nii.gz")) as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.touch()


def test_an_unwritable_place_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(WriteError, match="cannot write"):
            write_text(path, "a")
    assert issubclass(WriteError, OSError)


@pytest.mark.parametrize("size", [0, 1, 1000, 5000, 100_000])
def test_a_full_disk_leaves_no_cut_file(tmp_path: Path, size: int) -> None:
    """The limit on the size of files stands for the disk: a write beyond it fails in the middle."""
    program = f"""
import resource, signal, sys
from pathlib import Path
import numpy as np
from healmap.errors import WriteError
from healmap.io import Geometry, Image, write_map, write_json
image = Image(np.zeros((40, 41, 42)), "nifti", Geometry(np.eye(4), (1, 1, 1)), slice_axis=2)
noise = np.random.default_rng(0).normal(size=image.shape)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
for write in (lambda p: write_map(p, noise, image), lambda p: write_map(p, noise, image, form="npy"),
              lambda p: write_json(p, list(range(30000)))):
    try:
        write(Path(sys.argv[1], "out"))
    except WriteError as error:
        assert "out" in str(error)
    else:
        raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_leaves_is_found(tmp_path: Path) -> None:
    program = "import os, sys, healmap.io as io\nwith io.replacing(sys.argv[1]) as t: t.write_text('half'); os._exit(9)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.txt")], check=False)
    assert len(leftovers(tmp_path)) == 1
    assert not (tmp_path / "a.txt").exists()
    assert remove_stale(tmp_path) == 1
    assert leftovers(tmp_path) == []


def test_json_is_plain(tmp_path: Path) -> None:
    value = {"b": float("nan"), "a": [np.float32(1.5), np.int64(2), (float("inf"), None)], "p": Path("x"), "t": "é\udcff"}
    text = write_json(tmp_path / "a.json", value).read_text("utf-8")
    assert json.loads(text) == {"b": None, "a": [1.5, 2, [None, None]], "p": "x", "t": "é\udcff"}
    assert list(json.loads(text)) == ["b", "a", "p", "t"]
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=cmd|x", "'=cmd|x"),
        ("+a", "'+a"),
        ("-x", "'-x"),
        ("@a", "'@a"),
        ("-1.5", "-1.5"),
        ("+3e2", "+3e2"),
        ("a=b", "a=b"),
        ("", ""),
        ("\tx", "'\tx"),
    ],
)
def test_no_cell_is_a_formula(cell: str, safe: str) -> None:
    assert safe_cell(cell) == safe


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
