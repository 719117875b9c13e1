"""Every image decoded once, on the working grid, in a compact memory-mapped store.

A store is a folder ``<cache>/<key>`` with one ``.npy`` per kind (uint8, uint16, float32), ``masks.npy`` and ``index.json``.
The key is a hash of file contents, labels and geometry settings, so the same data elsewhere hit the same store, and intensity
settings do not matter. It is built in a temporary folder and renamed: two runs may build the same one, the later discards its
copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import to_plain
from ..errors import HealError, UsageError
from ..io.hashing import pixel_hash
from ..io.image import Image
from ..types import DISEASED, HEALTHY
from .case import choose_planes, mask_plane, plane_axis, plane_of, read_case, read_mask, stats_of
from .faults import Fault, refuse
from .hashes import Hashes
from .preprocess import FOREGROUND_SHARE, Preprocessing, Stats
from .table import Row, Table

FORMAT = 2  # raise when what a store holds changes
GEOMETRY = ("size", "channels", "fit", "percentiles", "axis")
STALE_SECONDS = 24 * 3600  # a temporary folder this old belongs to no living run
Progress = Callable[[int, int], None]
Warned = tuple[str, str, str]  # kind, place within the file, text: no name goes into the store
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Plane:
    """One stored plane: place within its case (None: the file is a plane), label, planes to the nearest lesion, where it is
    stored, where its mask is (-1: none), and the hash of its native pixels ("": constant, which identifies nothing)."""

    index: int | None
    label: str
    to_tumour: int | None
    kind: str
    place: int
    mask: int
    pixels: str


@dataclass(frozen=True)
class StoredCase:
    """One row's planes. ``left_out``: background planes not stored. ``patient``: pseudonym from the file's header, or ""."""

    stats: Stats
    planes: tuple[Plane, ...]
    left_out: int
    patient: str
    warnings: tuple[Warned, ...]


@dataclass(frozen=True)
class Store:
    """An opened store. arrays: (n, S, S[, 3]) per kind; masks: (n, S, S) uint8. Memory-mapped, read-only."""

    key: str
    arrays: dict[str, NDArray[Any]]
    masks: NDArray[np.uint8]
    cases: tuple[StoredCase, ...]


@dataclass(frozen=True)
class Decoded:
    """A row's file, read and prepared: what goes into the store."""

    stats: Stats
    planes: list[tuple[int | None, str, int | None, NDArray[Any], NDArray[np.bool_] | None, str]]
    left_out: int
    patient: str
    warnings: list[Warned]
    size: str


def cache_folder(given: Path | str | None = None) -> Path:
    """``given``, else $HEALMAP_CACHE, else ~/.cache/healmap."""
    return Path(given or os.environ.get("HEALMAP_CACHE") or Path.home() / ".cache" / "healmap")


def open_store(
    table: Table, preprocessing: Preprocessing, cache: Path | str | None = None, on_progress: Progress | None = None
) -> Store:
    """The store of these rows; built if it is not there, rebuilt if it is damaged.

    Raises:
        UsageError: images or masks cannot be used: all of them listed; or the cache cannot be written.
    """
    root = cache_folder(cache)
    with Hashes(root) as hashes:
        key = _key(table, preprocessing, hashes)
    store = _load(root / key, key)
    # A store made where such values were allowed is made again, for that names the images.
    refused = preprocessing.config.nonfinite == "refuse"
    if store and not (refused and any(case.stats["nonfinite"] for case in store.cases)):
        return store
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clean(root)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=root))
    except OSError as error:
        raise _unwritable(root, error) from None
    try:
        _build(building, table, preprocessing, on_progress)
        _publish(building, root / key, key)
    except OSError as error:
        raise _unwritable(root, error) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    store = _load(root / key, key)
    if store is None:
        raise UsageError("the cache changed while it was read", where=str(root / key), hint="start again")
    return store


def decode(table: Table, row: Row, preprocessing: Preprocessing) -> Decoded:
    """One row's file and mask, on the working grid.

    Raises:
        HealError: the file or mask cannot be used.
    """
    image = read_case(table.file(row))
    warnings: list[Warned] = []
    axis, stats = plane_axis(image, preprocessing.config.axis), stats_of(image, preprocessing)
    if stats["nonfinite"]:
        text = f"{stats['nonfinite']} of {stats['n']} values are not finite: they are taken as the lowest value"
        warnings.append(("nan", "", text))
    if stats["min"] == stats["max"]:
        warnings.append(("constant", "", f"all values are {stats['min']:g}: nothing can be learnt from it"))
    mask = read_mask(table, row, image)
    chosen, left_out = choose_planes(table, row, image, axis, stats, mask)
    if not chosen:
        warnings.append(("empty", "", "every plane is background: nothing is left of this volume"))
    planes = []
    for slice_row in chosen:
        native, padding = plane_of(image, slice_row.index, axis)
        seen = mask_plane(mask, image, slice_row.index, axis) if mask is not None else None
        at = f"slice {slice_row.index}" if image.is_volume else ""
        if seen is not None and slice_row.label == HEALTHY and seen.any():
            raise UsageError(f"labelled healthy, but {int(seen.sum())} pixels are marked as lesion", hint="correct one of them")
        if seen is not None and slice_row.label == DISEASED and not seen.any():
            warnings.append(("mask", at, "labelled diseased, but its mask marks nothing"))
        pixels = identity(native)
        planes.append(
            (
                slice_row.index if image.is_volume else None,
                slice_row.label,
                slice_row.to_tumour,
                preprocessing.prepare(native, stats, padding),
                preprocessing.prepare_mask(seen) if seen is not None else None,
                pixels,
            )
        )
    return Decoded(stats, planes, left_out, pseudonym(image.patient_id), warnings, _size(image))


def as_faults(table: Table, row: Row, warnings: Iterable[Warned]) -> list[Fault]:
    """A row's warnings with its name."""
    return [Fault(kind, ", ".join(filter(None, (table.where(row), at))), text, True) for kind, at, text in warnings]


def identity(plane: NDArray[Any]) -> str:
    """Hash of a plane's values whatever stores them, whole numbers kept as floats included; "" for constant planes."""
    if not plane.size or (plane == plane.flat[0]).all():
        return ""
    if plane.dtype.kind == "f" and (np.abs(plane) < 2**24).all() and (plane == np.rint(plane)).all():
        plane = plane.astype(np.int32)
    return pixel_hash(plane)


def pseudonym(patient_id: str | None) -> str:
    """A patient's name from a file's header, as a name that tells nothing: it only keeps the patient's images together."""
    return "p-" + hashlib.sha256(patient_id.encode("utf-8", "replace")).hexdigest()[:12] if patient_id else ""


def _size(image: Image) -> str:
    return f"{' x '.join(map(str, image.shape))} {image.array.dtype.name}{' RGB' if image.colour else ''}"


def in_threads(function: Callable[[A], B], items: Sequence[A], workers: int = 0) -> Iterator[B]:
    """``map`` in a few threads, in order, with few results waiting at any time. Decoders release the interpreter lock."""
    workers = workers or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        source, waiting = iter(items), list[Future[B]]()
        try:
            for item in islice(source, 2 * workers):
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.pop(0).result()
                for item in islice(source, 1):
                    waiting.append(pool.submit(function, item))
        finally:
            for future in waiting:
                future.cancel()


def _key(table: Table, preprocessing: Preprocessing, hashes: Hashes) -> str:
    def contents(row: Row) -> list[Any]:
        listed = [(s.index, s.label, s.to_tumour) for s in table.slices_of(row)]
        return [_sha(table.file(row), hashes), _sha(table.mask_file(row), hashes), row.box, row.label, listed]

    plain = to_plain(preprocessing.config)
    digest = hashlib.sha256(json.dumps([FORMAT, FOREGROUND_SHARE, [plain[k] for k in GEOMETRY]]).encode())
    for entry in in_threads(contents, table.rows):
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:32]


def _sha(path: Path | None, hashes: Hashes) -> str:
    """Hash of a file's content; of a series folder: of all its files. What cannot be read is reported when it is decoded."""
    if path is None:
        return ""
    try:
        if path.is_dir():
            return hashlib.sha256("".join(hashes.of(p) for p in sorted(path.iterdir()) if p.is_file()).encode()).hexdigest()
        return hashes.of(path)
    except OSError:
        return "unreadable"


# ---- building ---------------------------------------------------------------------------------------


class _Growing:
    """An ``.npy`` file written plane by plane; the first axis is set at the end. numpy leaves room for that in the header."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self.dtype, self.shape, self.count = np.dtype(dtype), shape, 0
        self.header()

    def header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, plane: NDArray[Any]) -> int:
        assert (plane.shape, plane.dtype) == (self.shape, self.dtype), (plane.shape, plane.dtype)
        self.file.write(np.ascontiguousarray(plane).data)
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        if not self.file.closed:
            self.file.seek(0)
            self.header()
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()


def _build(folder: Path, table: Table, preprocessing: Preprocessing, on_progress: Progress | None) -> None:
    size, faults = preprocessing.config.size, list[Fault]()
    cases: list[dict[str, Any]] = []

    def attempt(row: Row) -> Decoded | Fault:
        try:
            return decode(table, row, preprocessing)
        except HealError as error:
            return Fault("unreadable", table.where(row), str(error))

    with ExitStack() as stack:
        files: dict[str, _Growing] = {}

        def file(name: str, dtype: str, shape: tuple[int, ...]) -> _Growing:
            if name not in files:
                files[name] = _Growing(folder / f"{name}.npy", dtype, shape)
                stack.callback(files[name].close)
            return files[name]

        masks = file("masks", "uint8", (size, size))
        for done, result in enumerate(in_threads(attempt, table.rows), 1):
            if isinstance(result, Fault):
                faults.append(result)
            elif not faults:  # after a fault only further faults are of interest
                planes = []
                for index, label, near, plane, mask, pixels in result.planes:
                    kind = plane.dtype.name
                    name = kind if plane.ndim == 2 else f"{kind}-rgb"
                    place = file(name, kind, plane.shape).append(plane)
                    its_mask = masks.append(mask.view(np.uint8)) if mask is not None else -1
                    planes.append([index, label, near, name, place, its_mask, pixels])
                case = {"stats": result.stats, "planes": planes, "left_out": result.left_out}
                cases.append({**case, "patient": result.patient, "warnings": result.warnings})
            if on_progress:
                on_progress(done, len(table.rows))
    refuse(faults, table.name or str(table.root))
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    text = json.dumps({"format": FORMAT, "sizes": sizes, "cases": cases}).encode()
    for name, data in (("index.json", text), ("index.sha256", hashlib.sha256(text).hexdigest().encode())):
        with open(folder / name, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())


def _publish(building: Path, final: Path, key: str) -> None:
    """Renames the finished folder into place, unless a sound one is there by now."""
    for _ in range(3):
        with suppress(OSError):
            os.rename(building, final)
            return
        if _load(final, key):
            return
        # What stands there is damaged: move it aside first, another run may be looking at it.
        aside = final.parent / f".building-damaged-{secrets.token_hex(6)}"
        with suppress(OSError):
            os.rename(final, aside)
        shutil.rmtree(aside, ignore_errors=True)
    os.rename(building, final)


def _clean(root: Path) -> None:
    for path in root.glob(".building-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _load(folder: Path, key: str) -> Store | None:
    """The store in ``folder``; None if it is absent or damaged."""
    try:
        index = (folder / "index.json").read_bytes()
        if hashlib.sha256(index).hexdigest() != (folder / "index.sha256").read_text():
            return None
        plain = json.loads(index)
        if plain["format"] != FORMAT or any((folder / n).stat().st_size != size for n, size in plain["sizes"].items()):
            return None
        arrays = {n.removesuffix(".npy"): _map(folder / n) for n in plain["sizes"]}
    except (OSError, ValueError, KeyError):
        return None
    cases = tuple(
        StoredCase(
            c["stats"],
            tuple(Plane(*p) for p in c["planes"]),
            c["left_out"],
            c["patient"],
            tuple((k, at, t) for k, at, t in c["warnings"]),
        )
        for c in plain["cases"]
    )
    return Store(key, arrays, arrays.pop("masks"), cases)


def _map(path: Path) -> NDArray[Any]:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    # An empty file cannot be mapped.
    return np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)


def _unwritable(root: Path, error: OSError) -> HealError:
    return UsageError(
        f"cannot write the cache: {error.strerror or error}",
        where=str(root),
        hint="free some space, or set HEALMAP_CACHE to another folder",
    )
