"""Many images, one after the other: a table of scores, and for every image its map, healed image, mask and overlay.

Memory does not grow with the number of inputs. An input that cannot be used is listed with its error and skipped.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from ..data.case import read_case
from ..data.table import TABLE_NAME, read_table
from ..errors import CapabilityError, HealError, UsageError, WriteError
from ..io.atomic import replacing, safe_cell
from ..io.find import find_images
from ..io.image import Image
from ..io.write import write_map, write_png
from ..types import DISEASED, UNKNOWN
from .overlay import case_picture
from .predictor import Predictor
from .result import CaseResult

COLUMNS = ("path", "patient", "slice", "score", "threshold", "call", "error")
PENDING_PIXELS = 16_000_000  # planes waiting for a batch: 64 MB as float32
_DOUBLE = (".nii.gz",)


@dataclass(frozen=True)
class Source:
    """One input. name: as it stands in scores.csv and, without suffix, below maps/ and the others. patient, label: as a table
    says."""

    path: Path
    name: str
    patient: str = ""
    label: str = UNKNOWN


def sources(inputs: Path | str | Sequence[Path | str]) -> Iterator[Source]:
    """Images of files, folders (recursively, a DICOM series as one) and label tables, in order.

    One input's images are named relative to it. Several inputs' are named relative to the folder that all have in common, so
    that a/scan.nii.gz and b/scan.nii.gz stay apart in the table and on disk.

    Raises:
        UsageError: a path does not exist, or nothing is found at all.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found = False
    homes = [Path(os.path.abspath(path if os.path.isdir(path) else Path(path).parent)) for path in given]
    common = os.path.commonpath(homes) if len({home.anchor for home in homes}) == 1 else ""
    for path, home in zip(map(Path, given), homes, strict=True):
        if not path.exists():
            raise UsageError("no such file or folder", where=str(path), hint="check the path")
        prefix = PurePath(os.path.relpath(home, common)) if common and len(given) > 1 else PurePath()
        for source in _of(path):
            found = True
            yield replace(source, name=str(prefix / source.name))
    if not found:
        raise UsageError(
            "no image found", where=", ".join(map(str, given)), hint="give files, a folder of images, or a labels.csv"
        )


def _of(path: Path) -> Iterator[Source]:
    if path.is_file() and path.suffix.lower() == ".csv":
        table = read_table(path)
        for row in table.rows:
            yield Source(table.file(row), row.path, row.patient_id, row.label)
    elif path.is_dir() and (path / TABLE_NAME).is_file():
        yield from _of(path / TABLE_NAME)
    elif path.is_dir():
        for image in find_images(path):
            yield Source(image, str(image.relative_to(path)) if image != path else path.resolve().name)
    else:
        yield Source(path, path.name)


class Names:
    """Output names that mirror the inputs' relative paths and never meet, on file systems that ignore case as well."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> PurePath:
        parts = [p for p in PurePath(name).parts if p not in ("..", ".", PurePath(name).anchor)] or ["image"]
        folder, last = PurePath(*parts[:-1]), parts[-1]
        double = next((s for s in _DOUBLE if last.lower().endswith(s)), None)
        stem = last[: -len(double)] if double else PurePath(last).stem
        for candidate in chain((stem, last), (f"{last}-{k}" for k in count(2))):
            if candidate and self._claim(folder / candidate):
                return folder / candidate
        raise AssertionError("unreachable: the candidates do not end")

    def _claim(self, path: PurePath) -> bool:
        key = str(path).lower()
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


def predict_many(
    predictor: Predictor,
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    npy: bool = False,
    overlays: bool = True,
    assume_diseased: bool = False,
    on_case: Any = None,
) -> dict[str, int]:
    """Predicts every input and writes below ``out``; returns ``{"done", "failed", "slices"}``.

    ``scores.csv``: one row per image; of a volume one per slice and, with an empty ``slice``, one for the whole (its highest).
    ``maps/``: float, native size: NIfTI where the input's geometry is known and it is a volume, else 16-bit PNG with its scale
    in a JSON file, or ``.npy`` if ``npy``. ``healed/``: 8-bit PNG for 8-bit planes, else as maps. ``masks/``: PNG with 0 and
    255, NIfTI with 0 and 1. ``overlays/``: pictures with one colour scale for the set. Patients are named only where a label
    table names them.
    assume_diseased: a method that takes images known to be diseased only is given all of them. on_case: called with (name,
    done so far) after each input.

    Raises:
        UsageError: no input. WriteError: the disk is full.
    """
    out, names = Path(out), Names()
    counts = {"done": 0, "failed": 0, "slices": 0}
    choosy = type(predictor.method).class_at_inference and not assume_diseased
    if choosy and not any(_is_table(Path(path)) for path in ([inputs] if isinstance(inputs, str | Path) else inputs)):
        raise UsageError(
            f"{predictor.card.get('method', 'the method')} takes images known to be diseased only",
            where="these inputs have no labels",
            hint="give a labels.csv, of which the diseased rows are taken, or --assume-diseased to take all",
        )
    todo = sources(inputs)
    first = next(todo)  # nothing is written when there is nothing to do
    form: Literal["auto", "npy"] = "npy" if npy else "auto"
    with (
        replacing(out / "scores.csv") as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for source, result in _results(predictor, chain([first], todo), choosy=choosy):
            if isinstance(result, CaseResult):
                try:
                    _write(result, predictor, out, names.of(source.name), form, overlays)
                except WriteError:
                    raise
                except HealError as error:
                    result = error
            counts["failed" if isinstance(result, HealError) else "done"] += 1
            for row in _rows(source, result):
                table.writerow(row)
                counts["slices"] += row[2] != ""
            file.flush()
            if on_case is not None:
                on_case(source.name, counts["done"] + counts["failed"])
    return counts


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv" or (path / TABLE_NAME).is_file()


def _results(
    predictor: Predictor, todo: Iterator[Source], *, choosy: bool = False
) -> Iterator[tuple[Source, CaseResult | HealError]]:
    """In the order of the inputs. Planes wait for a batch; a volume, or an error, first lets the waiting ones through."""
    waiting: list[tuple[Source, Image]] = []

    def let_through() -> Iterator[tuple[Source, CaseResult | HealError]]:
        if waiting:
            yield from zip([s for s, _ in waiting], _planes(predictor, [i for _, i in waiting]), strict=True)
            waiting.clear()

    for source in todo:
        try:
            if choosy and source.label != DISEASED:
                raise CapabilityError(f"{source.label}: the method takes images known to be diseased only", where=source.name)
            image = read_case(source.path)
            if not image.is_volume:
                waiting.append((source, image))
                full = len(waiting) >= predictor.batch_size or sum(i.array.size for _, i in waiting) >= PENDING_PIXELS
                if full:
                    yield from let_through()
                continue
            yield from let_through()
            yield source, predictor.predict(image)
        except HealError as error:
            yield from let_through()
            yield source, error
    yield from let_through()


def _planes(predictor: Predictor, images: list[Image]) -> list[CaseResult | HealError]:
    """One batch; when it cannot be done as a whole, image by image, so that only the faulty ones fail."""
    try:
        return list(predictor.predict_planes(images))
    except HealError as error:
        if len(images) == 1:
            return [error]
    return [result for image in images for result in _planes(predictor, [image])]


def _rows(source: Source, result: CaseResult | HealError) -> list[list[str]]:
    name, patient = safe_cell(source.name), safe_cell(source.patient)
    if isinstance(result, HealError):
        return [[name, patient, "", "", "", "", safe_cell(str(result))]]
    threshold = "" if result.threshold is None else f"{result.threshold:.9g}"

    def row(index: int | str, score: float) -> list[str]:
        call = "" if result.threshold is None else "diseased" if score >= result.threshold else "healthy"
        return [name, patient, str(index), f"{score:.9g}", threshold, call, ""]

    return [*(row(index, score) for index, score in result.slices), row("", result.score)]


def _write(
    result: CaseResult, predictor: Predictor, out: Path, name: PurePath, form: Literal["auto", "npy"], overlays: bool
) -> None:
    image = result.image
    if result.anomaly_map is not None:
        write_map(out / "maps" / name, result.anomaly_map, image, form=form)
    if result.healed is not None:
        write_picture(result.healed, image, out / "healed" / name, npy=form == "npy")
    if result.mask is not None:
        if image.is_volume:
            write_map(out / "masks" / name, result.mask, image)
        else:
            write_png(_png(out / "masks" / name), result.mask.astype(np.uint8) * 255)
    if overlays:
        write_png(_png(out / "overlays" / name), case_picture(result, predictor))


def write_picture(picture: Any, image: Image, path: Path, *, npy: bool = False) -> Path:
    """An image in the units of ``image``, on its grid, as a file whose suffix is chosen here: 8-bit PNG for 8-bit planes, else
    as maps are written. Returns the file."""
    if image.array.dtype == np.uint8 and not image.is_volume and not npy:
        return write_png(_png(path), np.rint(picture.clip(0, 255)).astype(np.uint8))
    if picture.shape == image.shape:
        return write_map(path, picture, image, form="npy" if npy else "auto")
    # Colour of more than 8 bits, or a colour volume: no common picture format holds it.
    return write_map(path, picture, Image(picture, "array", slice_axis=image.slice_axis), form="npy")


def _png(path: Path) -> Path:
    return path.with_name(path.name + ".png")
