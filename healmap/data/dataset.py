"""Images, labels and masks of one split, ready for methods and for evaluation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..experiment import DataConfig
from ..io.image import Image
from ..types import HEALTHY, LABELS, SPLITS, Domains, Spec
from .cache import Plane, Progress, Store, as_faults, open_store
from .case import mask_plane, plane_axis, plane_of, read_case, read_mask
from .domains import codes, domains_of
from .faults import Fault, refuse, table_faults
from .preprocess import SETTINGS, Preprocessing, Stats, apply_limits, as_channels_first
from .table import Row, Table, read_table


@dataclass(frozen=True)
class Item:
    """One plane. key: unique in the dataset, ``path`` or ``path#slice``. slice: None for files that are planes."""

    key: str
    path: Path
    slice: int | None
    label: str
    patient_id: str
    split: str
    mask: str
    row: Row


@dataclass(frozen=True, eq=False)
class Native:
    """A plane as stored, at its own size, in display orientation; ``image`` is the whole file, with its geometry."""

    plane: NDArray[Any]
    mask: NDArray[np.bool_] | None
    stats: Stats
    image: Image


@dataclass(frozen=True, eq=False)
class _Entry:
    item: Item
    case: int
    plane: Plane
    limits: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Planes of the chosen rows, in the order of the table and of the slices. Pixels stay on disk, memory-mapped.

    notes: what was left out or assumed, one sentence each. warnings: faults that stop nothing.
    All arrays are numpy's; the loader makes tensors.
    """

    table: Table
    config: DataConfig
    preprocessing: Preprocessing
    spec: Spec
    split: str | None
    store: Store
    entries: tuple[_Entry, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[Fault, ...] = ()
    _recent: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        return tuple(e.item for e in self.entries)

    @property
    def pixel_hashes(self) -> tuple[str, ...]:
        """Hash of each item's native pixels; "" where they are constant, which identifies nothing."""
        return tuple(e.plane.pixels for e in self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of contents, labels, patients and splits: equal for equal data wherever they lie."""
        digest = hashlib.sha256(self.store.key.encode())
        for e in self.entries:
            i, further = e.item, (*self.config.attributes, "class")
            parts = [i.key, i.label, i.patient_id, i.split, e.plane.pixels, *(i.row[c] for c in further)]
            digest.update(json.dumps(parts).encode())
        return digest.hexdigest()

    def image(self, index: int) -> NDArray[np.float32]:
        """(C, S, S) in [-1, 1]."""
        return self.images([index])[0]

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, C, S, S) in [-1, 1]."""
        entries = [self.entries[i] for i in indices]
        size, channels = self.config.size, self.config.channels
        kinds = {e.plane.kind for e in entries}
        if len(kinds) == 1:
            places = [e.plane.place for e in entries]
            out = as_channels_first(self.store.arrays[kinds.pop()][places], channels)
        else:
            out = np.empty((len(entries), channels, size, size), np.float32)
            for kind in kinds:
                where = [i for i, e in enumerate(entries) if e.plane.kind == kind]
                out[where] = as_channels_first(self.store.arrays[kind][[entries[i].plane.place for i in where]], channels)
        return apply_limits(out, np.array([e.limits for e in entries]).reshape(-1, 2))

    def labels(self, indices: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Exclusive domains: int64 (N,), healthy 0, unknown -1. Attributes: float32 (N, K)."""
        items = [e.item for e in (self.entries if indices is None else [self.entries[i] for i in indices])]
        return codes(items, self.config, self.spec.domains)

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """(S, S) on the working grid; None: diseased or unknown and not annotated; healthy: all False; boxes are filled."""
        entry = self.entries[index]
        if entry.plane.mask >= 0:
            return self.store.masks[entry.plane.mask].astype(np.bool_)
        return np.zeros((self.config.size, self.config.size), np.bool_) if entry.item.label == HEALTHY else None

    def stats(self, index: int) -> Stats:
        """Statistics of the item's case."""
        return self.store.cases[self.entries[index].case].stats

    def native(self, index: int) -> Native:
        """The plane and its mask at their own size, read from the file. Successive planes of one volume read it once."""
        entry = self.entries[index]
        row, path = entry.item.row, str(entry.item.path)
        if self._recent.get("path") != path:
            image = read_case(entry.item.path)
            self._recent.update(path=path, image=image, mask=read_mask(self.table, row, image))
        image, mask = self._recent["image"], self._recent["mask"]
        axis, place = plane_axis(image, self.config.axis), entry.item.slice or 0
        plane, _ = plane_of(image, place, axis)
        seen: NDArray[np.bool_] | None = None
        if mask is not None:
            seen = mask_plane(mask, image, place, axis)
        elif entry.item.label == HEALTHY:
            seen = np.zeros(plane.shape[:2], np.bool_)
        return Native(plane, seen, self.stats(index), image)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """These items, in this order."""
        return replace(self, entries=tuple(self.entries[i] for i in indices), _recent={})

    def counts(self) -> dict[str, int]:
        """Images per label, patients, and how many images carry a mask or box."""
        labels = Counter(e.item.label for e in self.entries)
        return {
            **{name: labels[name] for name in LABELS},
            "patients": len({e.item.patient_id for e in self.entries}),
            "annotated": sum(e.plane.mask >= 0 for e in self.entries),
        }


def open_dataset(
    data: Path | str | Table,
    split: str | None,
    config: DataConfig,
    preprocessing: Preprocessing | None = None,
    cache: Path | None = None,
    on_progress: Progress | None = None,
    *,
    domains: Domains | None = None,
) -> Dataset:
    """The images of one split, decoded into the cache if they are not there yet.

    split: ``train``, ``val``, ``test``; None: all rows. preprocessing: that of a trained run; None: fitted on this dataset.
    domains: those of a trained run; None: from the whole table, so that every split counts classes alike.
    on_progress: called with (rows done, rows in all) while the cache is built.

    Raises:
        UsageError: faults of the table or of its files, all of them together; no such split; no image.
    """
    table = data if isinstance(data, Table) else read_table(data)
    where = table.name or str(table.root)
    faults = [f for f in table_faults(table) if not (f.kind == "leak" and config.allow_leak)]
    refuse(faults, where)
    chosen, notes = _choose(table, split, config, where)
    domains = domains or domains_of(table, config)
    if preprocessing is not None:
        config = _as_trained(config, preprocessing)
    store = open_store(chosen, preprocessing or Preprocessing(config), cache, on_progress)
    if preprocessing is None:
        preprocessing = Preprocessing.fit(config, (c.stats for c in store.cases))
    entries, more = _entries(chosen, config, preprocessing, store)
    if not entries:
        raise UsageError("no image is left", where=where, hint="; ".join([*notes, *more]) or "every plane is background")
    spec = Spec(config.channels, config.size, config.size, domains)
    seen = [w for row, case in zip(chosen.rows, store.cases, strict=True) for w in as_faults(chosen, row, case.warnings)]
    warnings = (*(f for f in faults if f.warning), *seen)
    dataset = Dataset(chosen, config, preprocessing, spec, split, store, entries, (*notes, *more), warnings)
    dataset.labels()  # classes and attributes that cannot be read are found now, not in a step
    return dataset


def _choose(table: Table, split: str | None, config: DataConfig, where: str) -> tuple[Table, list[str]]:
    notes = []
    if config.select:
        column, sign, value = config.select.partition("=")
        if not sign or column not in table.columns:
            hint = f"write column=value; columns: {', '.join(table.columns)}"
            raise UsageError(f"select '{config.select}' names no column", where=where, hint=hint)
        before, table = len(table), table.select(**{column: value})
        notes.append(f"{before - len(table)} of {before} rows left out by select {config.select}")
    if split is not None:
        if split not in SPLITS:
            raise UsageError(f"split '{split}' is none of {', '.join(SPLITS)}", where=where)
        have = Counter(r.split for r in table)
        if not have[split]:
            named = ", ".join(f"{k} {v}" for k, v in sorted(have.items()) if k)
            hint = f"rows per split: {named}" if named else "no row has a split: make them with 'healmap data split'"
            raise UsageError(f"no row belongs to split '{split}'", where=where, hint=hint)
        table = table.select(split=split)
    if not len(table):
        raise UsageError("the table holds no row", where=where, hint="list images in it")
    return table, notes


def _as_trained(config: DataConfig, preprocessing: Preprocessing) -> DataConfig:
    """The settings asked for, with what the network sees taken from the run."""
    return replace(config, **{name: getattr(preprocessing.config, name) for name in SETTINGS})


def _entries(
    table: Table, config: DataConfig, preprocessing: Preprocessing, store: Store
) -> tuple[tuple[_Entry, ...], list[str]]:
    entries, near, unsaid, background = [], 0, 0, 0
    for number, (row, case) in enumerate(zip(table.rows, store.cases, strict=True)):
        limits = preprocessing.limits(case.stats)
        background += case.left_out
        # Without a patient every file is a patient of its own; a file's own header may know better.
        patient = row.patient_id or case.patient or row.path
        for plane in case.planes:
            if config.min_slices_to_tumour and plane.label == HEALTHY:
                distance = _distance(row, plane)
                unsaid += distance is None
                if distance is not None and distance < config.min_slices_to_tumour:
                    near += 1
                    continue
            key = row.path if plane.index is None else f"{row.path}#{plane.index:04d}"
            item = Item(key, table.file(row), plane.index, plane.label, patient, row.split, row.mask, row)
            entries.append(_Entry(item, number, plane, limits))
    notes = []
    if background:
        notes.append(f"{background} planes of volumes left out: nothing but background")
    if near:
        notes.append(f"{near} healthy slices left out: closer than {config.min_slices_to_tumour} slices to a lesion")
    if unsaid:
        notes.append(f"{unsaid} healthy images kept although the table does not say how far the nearest lesion is")
    return tuple(entries), notes


def _distance(row: Row, plane: Plane) -> int | None:
    if plane.to_tumour is not None:
        return plane.to_tumour
    text = row["slices_to_tumour"]
    return int(text) if text.isdigit() and plane.index is None else None


def manifest(dataset: Dataset) -> Mapping[str, Any]:
    """What a run records about its data."""
    return {
        "name": dataset.table.name,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
        "counts": dataset.counts(),
        "notes": list(dataset.notes),
        "warnings": [str(w) for w in dataset.warnings],
    }
