"""Pieces of a comparison on disk, used again only where everything that they depend on is the same: weights, images, code.

A piece is a folder: ``part.json`` (figures, what they depend on, and the hashes of the other files), ``samples.npz`` (their
resamples, for differences between runs), and what the maker puts beside them. ``part.json`` is written last, so that a folder
with one is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WriteError
from ..io.atomic import remove_stale, replacing, write_json
from ..io.damage import DAMAGED
from ..io.hashing import sha256_file
from ..metrics.bootstrap import Figure
from .figures import Tree, plain

FORMAT = 2
RECORD, SAMPLES = "part.json", "samples.npz"
Make = Callable[[Path], tuple[Tree, dict[str, Any]]]  # folder for further files -> figures, facts in plain data


@dataclass(frozen=True)
class Part:
    """figures: with their resamples. facts: what the maker said about them. folder: its name. again: it was there already."""

    figures: Tree
    facts: dict[str, Any]
    folder: str
    again: bool


class Parts:
    """The pieces below ``folder``, which is made.

    Raises:
        WriteError: it cannot be written. That is said before the work rather than after it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.used = folder, set[str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise WriteError("cannot write", where=str(folder), hint=error.strerror or type(error).__name__) from error

    def of(self, depends: Mapping[str, Any], make: Make) -> Part:
        """The piece that depends on these plain data, and on the code and the versions of what it computes with."""
        whole = json.loads(json.dumps({"format": FORMAT, "code": code(), "versions": _versions(), **depends}))
        name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:20]
        folder = self.folder / name
        self.used.add(name)
        found = _read(folder, whole)
        if found is not None:
            return Part(*found, name, again=True)
        shutil.rmtree(folder, ignore_errors=True)
        figures, facts = make(folder)
        with replacing(folder / SAMPLES) as temporary, open(temporary, "wb") as file:
            drawn = {path: figure.samples for path, figure in flat(figures) if figure.samples is not None}
            np.savez_compressed(file, **drawn)  # type: ignore[arg-type]
        files = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
        write_json(folder / RECORD, {"depends": whole, "figures": plain(figures), "facts": facts, "files": files})
        return Part(figures, facts, name, again=False)

    def forget_the_rest(self) -> None:
        """Removes pieces that nobody asked for since this object was made, and what killed ones left."""
        remove_stale(self.folder)
        for folder in self.folder.iterdir():
            if folder.name not in self.used and re.fullmatch("[0-9a-f]{20}", folder.name):
                shutil.rmtree(folder, ignore_errors=True)


def flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure with its dotted path."""
    for name, value in tree.items():
        if isinstance(value, Figure):
            yield prefix + name, value
        else:
            yield from flat(value, f"{prefix}{name}.")


def _read(folder: Path, depends: Mapping[str, Any]) -> tuple[Tree, dict[str, Any]] | None:
    """Figures and facts; None if there are none, they are damaged, or they depend on something else."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["depends"] != depends or not _whole(folder, record["files"]):
            return None
        with np.load(folder / SAMPLES, allow_pickle=False) as file:
            samples = {name: file[name] for name in file.files}
        return _figures(record["figures"], samples), record["facts"]
    except DAMAGED:
        return None


def _whole(folder: Path, files: Mapping[str, str]) -> bool:
    return SAMPLES in files and all(sha256_file(folder / name) == sha for name, sha in files.items())


def _figures(tree: Mapping[str, Any], samples: Mapping[str, NDArray[Any]], prefix: str = "") -> Tree:
    found: Tree = {}
    for name, value in tree.items():
        if "value" in value and "n" in value:
            ends = tuple(value["ci95"]) if value["ci95"] else None
            found[name] = Figure(value["value"], ends, value["n"], value.get("reason", ""), samples.get(prefix + name))
        else:
            found[name] = _figures(value, samples, f"{prefix}{name}.")
    return found


@lru_cache(maxsize=1)
def code() -> str:
    """Hash of healmap's source: a version number does not change with every line."""
    package, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    from ..training.manifest import versions

    return versions()
