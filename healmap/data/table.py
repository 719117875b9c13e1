"""The label table: which file, which label, which patient, which split, and where the lesion is.

``labels.csv`` is the one format. A folder per class, or a plain folder of images, becomes such a table on the fly. Reading
never drops or mends a row: what is wrong with it is found by :mod:`healmap.data.faults` and reported all at once.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from ..io.atomic import write_bytes
from ..io.find import find_images
from ..types import LABELS, SPLITS, UNKNOWN

COLUMNS = ("path", "label", "patient_id", "split", "mask", "box")
FILES = ("path", "mask", "twin", "truth", "truth_mask")  # columns that name files, from the table's folder on
TABLE_NAME, SLICES_NAME = "labels.csv", "slices.csv"


@dataclass(frozen=True)
class Row:
    """One image or volume. Texts as written, trimmed; ``label`` and ``split`` in lower case.

    path, mask: relative to the table's folder, or absolute. ``mask``: an image of the same size, lesion = not zero.
    box: ``x,y,width,height`` in pixels of the stored image, origin at the top left; several separated by ``;``.
    extra: every further column. line: where the row stands in the file (0: it came from no file).
    """

    path: str
    label: str = UNKNOWN
    patient_id: str = ""
    split: str = ""
    mask: str = ""
    box: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    line: int = 0

    def __getitem__(self, column: str) -> str:
        return str(getattr(self, column)) if column in COLUMNS else self.extra.get(column, "")


@dataclass(frozen=True)
class SliceRow:
    """What ``slices.csv`` says of one plane of a volume. ``to_tumour``: planes to the nearest lesion, None: not said."""

    index: int
    label: str
    split: str = ""
    to_tumour: int | None = None
    line: int = 0


@dataclass(frozen=True)
class Table:
    """Rows and the folder that their paths start from.

    columns: those the file has, in its order. slices: planes by path or by patient, from ``slices.csv`` beside the table.
    problems: what was wrong with the file as such while reading, as (line, text).
    """

    root: Path
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = COLUMNS
    name: str = ""
    slices: Mapping[str, tuple[SliceRow, ...]] = field(default_factory=dict)
    problems: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def file(self, row: Row) -> Path:
        return self.root / row.path

    def mask_file(self, row: Row) -> Path | None:
        return self.root / row.mask if row.mask else None

    def slices_of(self, row: Row) -> tuple[SliceRow, ...]:
        """The planes that ``slices.csv`` lists for this volume; empty: it lists none."""
        return self.slices.get(row.path) or (self.slices.get(row.patient_id) if row.patient_id else None) or ()

    def where(self, row: Row) -> str:
        """The row in words, for messages."""
        return f"{self.name or TABLE_NAME} line {row.line}, {row.path}" if row.line else row.path

    def select(self, **columns: str) -> Table:
        """Only the rows whose columns have these texts: ``table.select(split="train", modality="flair")``."""
        rows = tuple(r for r in self.rows if all(r[c] == v for c, v in columns.items()))
        return replace(self, rows=rows)


def read_table(path: Path | str) -> Table:
    """A table from ``labels.csv``, a folder holding one, a folder per class, a folder of images, or one image.

    Folder per class: any level of the path named ``healthy``, ``diseased`` or ``unknown`` gives the label, one named ``train``,
    ``val`` or ``test`` the split; a folder between these and the image is the patient. ``masks/`` beside them mirrors the
    tree (same path, or same stem) and is no image folder. Files outside class folders are ``unknown``. The column ``folder``
    names each file's first folder that is no split.

    Raises:
        UsageError: nothing there, no image, not a table, or two classes' names in one path.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("no such file or folder", where=str(path), hint="give a labels.csv, a folder of images, or an image")
    if path.is_dir():
        return _read_csv(path / TABLE_NAME) if (path / TABLE_NAME).is_file() else _read_folder(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _read_csv(path)
    return Table(path.parent, (Row(path.name),), name=path.name)


def _decode(path: Path) -> tuple[str, bool]:
    """The text of a file, and whether it had to be taken as Latin-1."""
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16"), False
    try:
        return raw.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return raw.decode("latin-1"), True


def _records(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], bool]:
    """(header, [(line, cells)], latin1) of a CSV file; comma, semicolon or tab, whichever the header uses."""
    try:
        text, latin1 = _decode(path)
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header: list[str] = []
        rows = []
        start = 1
        for cells in reader:
            if any(c.strip() for c in cells):
                if not header:
                    header = [c.strip().lower() if c.strip().lower() in COLUMNS else c.strip() for c in cells]
                else:
                    rows.append((start, cells))
            start = reader.line_num + 1
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(f"cannot read the table: {error}", where=str(path), hint="save it as UTF-8 CSV") from None
    return header, rows, latin1


def _read_csv(path: Path) -> Table:
    header, records, latin1 = _records(path)
    if "path" not in header:
        shown = ", ".join(header[:8]) or "none"
        raise UsageError("the table has no column 'path'", where=str(path), hint=f"its columns are: {shown}")
    double = sorted({c for c in header if c and header.count(c) > 1})
    if double:
        raise UsageError(f"column '{double[0]}' stands twice", where=str(path), hint="rename or remove one")
    rows, problems = [], []
    for line, cells in records:
        if len(cells) > len(header) and any(c.strip() for c in cells[len(header) :]):
            problems.append((line, f"{len(cells)} cells, but the header has {len(header)}: quote cells that hold a comma"))
        if len(cells) < len(header):
            problems.append((line, f"only {len(cells)} cells, but the header has {len(header)}"))
        cell = {c: text.strip() for c, text in zip(header, cells, strict=False) if c}
        known = {c: cell.pop(c, "") for c in COLUMNS}
        known["label"] = known["label"].lower() if "label" in header else UNKNOWN
        known["split"] = known["split"].lower()
        if latin1:
            known["path"], known["mask"] = (_existing(path.parent, known[c]) for c in ("path", "mask"))
        rows.append(Row(**known, extra=cell, line=line))
    columns = tuple(c for c in header if c)
    slices, more = _read_slices(path.parent / SLICES_NAME) if path.name == TABLE_NAME else ({}, [])
    return Table(path.parent, tuple(rows), columns, path.name, slices, (*problems, *more))


def _existing(root: Path, text: str) -> str:
    """A file name from a table that is not UTF-8: as Latin-1, or as the bytes themselves, whichever exists."""
    if text and not text.isascii() and not (root / text).exists():
        raw = os.fsdecode(text.encode("latin-1"))
        if (root / raw).exists():
            return raw
    return text


def _read_slices(path: Path) -> tuple[dict[str, tuple[SliceRow, ...]], list[tuple[int, str]]]:
    """Planes by path or patient. Columns: ``path`` or ``patient_id``, ``slice`` (from 0), ``label``, and ``split``,
    ``slices_to_tumour`` where known."""
    if not path.is_file():
        return {}, []
    header, records, _ = _records(path)
    owner = "path" if "path" in header else "patient_id"
    missing = [c for c in (owner, "slice", "label") if c not in header]
    if missing:
        raise UsageError(f"no column '{missing[0]}'", where=str(path), hint="slices.csv needs path or patient_id, slice, label")
    found: dict[str, list[SliceRow]] = {}
    problems = []
    for line, cells in records:
        cell = {c: text.strip() for c, text in zip(header, cells, strict=False)}
        label, index = cell.get("label", "").lower(), cell.get("slice", "")
        if not index.isdigit():
            problems.append((line, f"{SLICES_NAME}: slice '{index}' is not a number counted from 0"))
        elif label not in LABELS:
            problems.append((line, f"{SLICES_NAME}: label '{label}' is none of {', '.join(LABELS)}"))
        else:
            near = cell.get("slices_to_tumour", "")
            found.setdefault(cell[owner], []).append(
                SliceRow(int(index), label, cell.get("split", "").lower(), int(near) if near.isdigit() else None, line)
            )
    return {k: tuple(sorted(v, key=lambda s: s.index)) for k, v in found.items()}, problems


def _read_folder(folder: Path) -> Table:
    files = find_images(folder)
    names = [PurePosixPath(f.relative_to(folder).as_posix()) for f in files]
    masks = {str(n.relative_to("masks").with_suffix("")): str(n) for n in names if n.parts[0] == "masks" and len(n.parts) > 1}
    by_stem: dict[str, list[str]] = {}
    for tree, mask in masks.items():
        by_stem.setdefault(PurePosixPath(tree).name, []).append(mask)
    rows = []
    for name in names:
        if name.parts[0] == "masks" and len(name.parts) > 1:
            continue
        row = _row_of(name, folder)
        stem, same = str(name.with_suffix("")), by_stem.get(name.stem, [])
        mask = masks.get(stem) or (same[0] if len(same) == 1 else "")
        rows.append(replace(row, mask=mask))
    if not rows:
        raise UsageError("no image found", where=str(folder), hint="PNG, JPEG, TIFF, NIfTI and DICOM files are looked for")
    return Table(folder, tuple(rows), (*COLUMNS, "folder"), folder.name)


def _row_of(name: PurePosixPath, folder: Path) -> Row:
    """What the folders of a path say."""
    parts = [p.lower() for p in name.parts[:-1]]
    labels, splits = [p for p in parts if p in LABELS], [p for p in parts if p in SPLITS]
    if len(set(labels)) > 1 or len(set(splits)) > 1:
        raise UsageError("a path names two classes or two splits", where=str(folder / name), hint="keep one folder per class")
    known = [i for i, p in enumerate(parts) if p in LABELS or p in SPLITS]
    below = name.parts[known[-1] + 1 : -1] if known else ()
    own = next((p for p in name.parts[:-1] if p.lower() not in SPLITS), "")
    return Row(str(name), labels[0] if labels else UNKNOWN, "/".join(below), splits[0] if splits else "", extra={"folder": own})


def write_table(table: Table, path: Path | str) -> None:
    """``table`` as CSV at ``path``, whole or not at all; paths are rewritten to start from the new file's folder."""
    path = Path(path)
    columns = [*table.columns, *(c for c in COLUMNS if c not in table.columns)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in table.rows:
        moved = {c: _relative(table.root, path.parent, row[c]) for c in FILES}
        writer.writerow([moved[c] if c in moved else row[c] for c in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, out.getvalue().encode("utf-8", "surrogateescape"))


def _relative(old: Path, new: Path, text: str) -> str:
    """A path of a table at ``old`` as a table at ``new`` writes it."""
    if not text or Path(text).is_absolute() or old.resolve() == new.resolve():
        return text
    return os.path.relpath(old.resolve() / text, new.resolve())
