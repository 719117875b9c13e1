"""Everything that is wrong with a folder or table, at once: the table itself, every file, every mask, every pair of splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import HealError
from ..experiment import DataConfig
from ..types import LABELS, SPLITS
from .cache import Decoded, Progress, as_faults, decode, in_threads
from .faults import Fault, boxes, table_faults
from .leaks import Leak, Member, find_leaks
from .preprocess import Preprocessing
from .table import Row, Table, read_table


@dataclass(frozen=True)
class Report:
    """faults: what must be mended. warnings: what should be known. counts: (split, label) -> images, patients, annotated."""

    name: str
    rows: int
    images: int
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    counts: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    patients: int = 0
    left_out: int = 0

    @property
    def ok(self) -> bool:
        return not self.faults

    def lines(self) -> Iterator[str]:
        """The report as lines of text: what is there, then warnings, then every fault."""
        volumes = f" from {self.rows} files" if self.images != self.rows else ""
        yield f"{self.name}: {self.images} images{volumes}, {self.patients} patients"
        if self.sizes:
            yield "sizes: " + ", ".join(f"{size} ({n})" for size, n in sorted(self.sizes.items(), key=lambda s: -s[1])[:6])
        if self.counts:
            yield f"{'split':8}{'label':10}{'images':>8}{'patients':>10}{'annotated':>11}"
            order = [(s, label) for s in (*SPLITS, "") for label in LABELS]
            for key in sorted(self.counts, key=lambda k: order.index(k) if k in order else len(order)):
                images, patients, annotated = self.counts[key]
                yield f"{key[0] or '-':8}{key[1]:10}{images:>8}{patients:>10}{annotated:>11}"
        if self.left_out:
            yield f"{self.left_out} planes of volumes left out: nothing but background"
        for number, fault in enumerate(self.warnings, 1):
            yield f"warning {number}: {fault}"
        for number, fault in enumerate(self.faults, 1):
            yield f"fault {number} ({fault.kind}): {fault}"
        yield f"{len(self.faults) or 'no'} faults, {len(self.warnings) or 'no'} warnings"


def check(path: Path | str | Table, config: DataConfig | None = None, on_progress: Progress | None = None) -> Report:
    """Reads everything and reports everything; memory stays flat.

    Raises:
        UsageError: there is no table and no image at ``path``.
    """
    table = path if isinstance(path, Table) else read_table(path)
    faults = table_faults(table)
    preprocessing = Preprocessing(config or DataConfig())
    seen: dict[str, tuple[Row, str]] = {}
    images: Counter[tuple[str, str]] = Counter()
    annotated: Counter[tuple[str, str]] = Counter()
    patients: dict[tuple[str, str], set[str]] = {}
    sizes: Counter[str] = Counter()
    members: list[Member] = []
    left_out = 0

    def attempt(row: Row) -> Decoded | Fault | None:
        if not row.path or not table.file(row).exists():
            return None  # listed already
        try:
            return decode(table, _usable(table, row), preprocessing)
        except HealError as error:
            return Fault("unreadable", table.where(row), str(error))

    for done, (row, result) in enumerate(zip(table.rows, in_threads(attempt, table.rows), strict=True), 1):
        if isinstance(result, Fault):
            faults.append(result)
        elif result is not None:
            faults += as_faults(table, row, result.warnings)
            left_out += result.left_out
            sizes[result.size] += 1
            patient = row.patient_id or result.patient
            for index, label, _, _, mask, pixels in result.planes:
                key = (row.split, label)
                images[key] += 1
                annotated[key] += mask is not None and bool(mask.any())
                patients.setdefault(key, set()).add(patient or row.path)
                name = row.path if index is None else f"{row.path}#{index:04d}"
                members.append(Member(row.split, name, patient, pixels))
                if pixels:
                    faults += _twin(table, row, label, seen.setdefault(pixels, (row, label)))
        if on_progress:
            on_progress(done, len(table.rows))
    faults += [_leak_fault(table, leak) for leak in find_leaks(members) if _is_new(leak, table)]
    counts = {key: (images[key], len(patients[key]), annotated[key]) for key in images}
    everybody = {p for group in patients.values() for p in group}
    return Report(
        table.name or str(table.root),
        len(table),
        sum(images.values()),
        tuple(f for f in faults if not f.warning),
        tuple(f for f in faults if f.warning),
        counts,
        dict(sizes),
        len(everybody),
        left_out,
    )


def _usable(table: Table, row: Row) -> Row:
    """The row without a mask or box that is reported already, so that its pixels are still looked at."""
    mask = table.mask_file(row)
    if mask is not None and not mask.exists():
        row = replace(row, mask="")
    try:
        boxes(row.box)
    except ValueError:
        row = replace(row, box="")
    return row


def _twin(table: Table, row: Row, label: str, first: tuple[Row, str]) -> list[Fault]:
    """The same pixels seen before, in another file of the same split."""
    other, its_label = first
    if other is row or other.path == row.path or row.split != other.split:
        return []  # across splits it is a leak and reported as one
    if label != its_label:
        text = f"the same pixels as {other.path}, but '{label}' here and '{its_label}' there: decide for one"
        return [Fault("conflict", table.where(row), text)]
    return [Fault("duplicate", table.where(row), f"the same pixels as {other.path}", True)]


def _is_new(leak: Leak, table: Table) -> bool:
    """Patients whom the table itself names in two splits are reported already."""
    return leak.kind == "pixels" or not any(r.patient_id == leak.what for r in table)


def _leak_fault(table: Table, leak: Leak) -> Fault:
    return Fault("leak", table.name or str(table.root), f"{leak}: keep them in one split")
