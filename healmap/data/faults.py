"""What can be wrong with a label table, found without opening an image: all of it, in one list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..types import LABELS, SPLITS, UNKNOWN
from .table import SLICES_NAME, Row, Table

SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """kind: a short word. where: file and line. text: what is wrong and what to do. A warning does not stop any work."""

    kind: str
    where: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def table_faults(table: Table, *, files: bool = True) -> list[Fault]:
    """Faults of rows, labels, splits, patients and (``files``) missing files; in the order of the table."""
    faults = [Fault("row", f"{table.name} line {line}", text) for line, text in table.problems]
    first: dict[str, Row] = {}
    has_splits = any(r.split for r in table)
    for row in table:
        faults += [Fault(kind, table.where(row), text) for kind, text in _row_faults(table, row, has_splits, files)]
        if not row.path:
            continue
        earlier = first.setdefault(row.path, row)
        if earlier is not row:
            if earlier.label != row.label:
                text = f"labelled '{row.label}' here and '{earlier.label}' in line {earlier.line}: decide for one"
                faults.append(Fault("conflict", table.where(row), text))
            else:
                faults.append(Fault("duplicate", table.where(row), f"stands already in line {earlier.line}: remove one"))
    return faults + patient_faults(table) + _slice_faults(table) + _warnings(table)


def _row_faults(table: Table, row: Row, has_splits: bool, files: bool) -> list[tuple[str, str]]:
    out = []
    choices = ", ".join(LABELS)
    if not row.path:
        return [("path", "no path: fill the cell or remove the row")]
    if row.label not in LABELS:
        out.append(("label", f"label '{row.label}' is none of {choices}" if row.label else f"no label: write one of {choices}"))
    if row.split and row.split not in SPLITS:
        out.append(("split", f"split '{row.split}' is none of {', '.join(SPLITS)}"))
    if has_splits and not row.split:
        out.append(("split", "no split although other rows have one: fill the cell, or split anew with 'healmap data split'"))
    if files and not table.file(row).exists():
        out.append(("missing", "no such file: correct the path (it starts from the table's folder)"))
    mask = table.mask_file(row)
    if files and mask is not None and not mask.exists():
        out.append(("mask", f"mask {row.mask} does not exist: correct the path or empty the cell"))
    if row.box:
        try:
            boxes(row.box)
        except ValueError as error:
            out.append(("box", f"box '{row.box}': {error}"))
    return out


def boxes(text: str) -> list[tuple[float, float, float, float]]:
    """``x,y,width,height;…`` as numbers. Raises ValueError saying what is wrong."""
    out = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        try:
            numbers = [float(n) for n in part.split(",")]
        except ValueError:
            raise ValueError("write x,y,width,height as numbers, several boxes separated by ;") from None
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            raise ValueError("write x,y,width,height, several boxes separated by ;")
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise ValueError("width and height must be positive")
        out.append((x, y, width, height))
    return out


def patient_faults(table: Table) -> list[Fault]:
    """Patients with rows in more than one split."""
    splits: dict[str, dict[str, Row]] = {}
    for row in table:
        if row.patient_id and row.split:
            splits.setdefault(row.patient_id, {}).setdefault(row.split, row)
    faults = []
    for patient, of in splits.items():
        if len(of) > 1:
            rows = ", ".join(f"{s} (line {r.line})" if r.line else f"{s} ({r.path})" for s, r in of.items())
            text = f"in several splits: {rows}: keep a patient in one split"
            faults.append(Fault("leak", f"{table.name} patient {patient}", text))
    return faults


def _slice_faults(table: Table) -> list[Fault]:
    paths, patients = {r.path for r in table}, {r.patient_id: r for r in table if r.patient_id}
    faults = []
    for owner, planes in table.slices.items():
        if owner not in paths and owner not in patients:
            faults.append(Fault("slices", f"{SLICES_NAME} line {planes[0].line}", f"'{owner}' is in no row of the table", True))
        seen: set[int] = set()
        for plane in planes:
            where = f"{SLICES_NAME} line {plane.line}, {owner} slice {plane.index}"
            if plane.index in seen:
                faults.append(Fault("duplicate", where, "this slice is listed twice: remove one"))
            seen.add(plane.index)
            row = patients.get(owner)
            if plane.split and row is not None and row.split and plane.split != row.split:
                text = f"split '{plane.split}' here, '{row.split}' in {table.name}: make them agree"
                faults.append(Fault("split", where, text))
    return faults


def _warnings(table: Table) -> list[Fault]:
    out = []
    nameless = sum(not r.patient_id for r in table)
    if nameless:
        text = (
            f"{nameless} of {len(table)} rows name no patient: each such file counts as a patient of its own; "
            "fill patient_id if several images show the same person"
        )
        out.append(Fault("patient", table.name or str(table.root), text, True))
    unlabelled = sum(r.label == UNKNOWN for r in table)
    if unlabelled == len(table):
        text = "no row has a label: the images can be predicted, not trained on or evaluated"
        out.append(Fault("label", table.name or str(table.root), text, True))
    return out


def refuse(faults: Sequence[Fault], where: str) -> None:
    """Raises UsageError with the first faults and their number; warnings pass."""
    real = [f for f in faults if not f.warning]
    if not real:
        return
    shown = "; ".join(f"[{i}] {f}" for i, f in enumerate(real[:SHOWN], 1))
    more = f"; and {len(real) - SHOWN} more" if len(real) > SHOWN else ""
    noun = "fault" if len(real) == 1 else "faults"
    raise UsageError(f"{len(real)} {noun} in the data: {shown}{more}", where=where, hint="'healmap data check' lists them all")
