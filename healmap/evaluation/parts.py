"""Pieces of a comparison on disk, used again only where everything that they depend on is the same: weights, images, code.

A piece is a folder: ``part.json`` (figures, and what they depend on), ``samples.npz`` (their resamples, for differences between
runs), and what the maker puts beside them. ``part.json`` is written last, so that a folder with one is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io.atomic import replacing, write_json
from ..io.hashing import sha256_file
from ..metrics.bootstrap import Figure
from .figures import Tree, plain

FORMAT = 1
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
    """The pieces below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.used = folder, set[str]()

    def of(self, depends: Mapping[str, Any], make: Make) -> Part:
        """The piece that depends on these plain data, and on the code and the versions of what it computes with."""
        whole = json.loads(json.dumps({"format": FORMAT, "code": code(), "versions": _versions(), **depends}))
        name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:20]
        self.used.add(name)
        found = _read(self.folder / name, whole)
        if found is not None:
            return Part(*found, name, again=True)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        figures, facts = make(self.folder / name)
        with replacing(self.folder / name / SAMPLES) as temporary, open(temporary, "wb") as file:
            drawn = {k: f.samples for k, f in flat(figures).items() if f.samples is not None}
            np.savez_compressed(file, **drawn)  # type: ignore[arg-type]
        record = {"depends": whole, "figures": plain(figures), "facts": facts}
        write_json(self.folder / name / RECORD, record)
        return Part(figures, facts, name, again=False)

    def forget_the_rest(self) -> None:
        """Removes pieces that nobody asked for since this object was made."""
        for record in self.folder.glob(f"*/{RECORD}"):
            if record.parent.name not in self.used:
                shutil.rmtree(record.parent, ignore_errors=True)


def flat(tree: Tree, prefix: str = "") -> dict[str, Figure]:
    """Every figure by its dotted path."""
    return dict(_walk(tree, prefix))


def _walk(tree: Tree, prefix: str) -> Iterator[tuple[str, Figure]]:
    for name, value in tree.items():
        if isinstance(value, Figure):
            yield prefix + name, value
        else:
            yield from _walk(value, f"{prefix}{name}.")


def _read(folder: Path, depends: Mapping[str, Any]) -> tuple[Tree, dict[str, Any]] | None:
    """Figures and facts; None if there are none, they are damaged, or they depend on something else."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["depends"] != depends:
            return None
        with np.load(folder / SAMPLES, allow_pickle=False) as file:
            samples = {name: file[name] for name in file.files}
        return _figures(record["figures"], samples), record["facts"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


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
