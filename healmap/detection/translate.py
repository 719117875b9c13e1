"""Images brought into another domain: to an attribute, a class, a modality, or back to health.

Written at the input's own size and in the input's own intensity range, what the network sees as [-1, 1] being the range of the
run's normalisation. Unlike a healed image the result carries nothing of the input past the network: between modalities the fine
structure of the one has no place in the other. Memory does not grow with the number of inputs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.case import is_background, plane_axis, plane_of, read_case, stats_of
from ..data.domains import codes
from ..data.preprocess import Preprocessing
from ..data.table import TABLE_NAME, Row, read_table
from ..errors import CapabilityError, DataError, HealError, UsageError, WriteError
from ..experiment import DataConfig
from ..io.atomic import replacing, safe_cell
from ..io.image import Image, n_slices, put_plane
from ..io.write import write_png
from ..methods.single_precision import single_precision
from ..types import DISEASED, Domains
from .batch import Names, Source, sources, write_picture
from .grid import Cell, write_grid
from .predictor import ADVICE, Predictor

COLUMNS = ("path", "to", "file", "error")
GRID_ROWS = 64  # images in the picture grid


@dataclass(frozen=True)
class Target:
    """A domain to translate to. code: one label as the loader gives it, () int64 or (K,) float32."""

    title: str
    code: NDArray[Any]


def target_of(predictor: Predictor, names: Sequence[str]) -> Target:
    """The target that these names mean: one class of exclusive domains, or the attributes that hold, all others off.

    Raises:
        UsageError: no such domain, or several exclusive ones. CapabilityError: the method does not reach it.
    """
    method, domains = predictor.method, predictor.method.spec.domains
    name = predictor.card.get("method", type(method).__name__)
    if method.reaches == "nothing":
        raise CapabilityError(f"{name} does not translate", where="--to", hint="predict gives its scores and maps")
    for given in names:
        if given not in domains.names:
            raise UsageError(f"no domain '{given}'", where="--to", hint=f"this run knows {', '.join(domains.names)}")
    if domains.exclusive:
        if len(names) != 1:
            hint = f"name one of {', '.join(domains.names)}"
            raise UsageError("an image is of one domain, not of several", where="--to", hint=hint)
        index = domains.names.index(names[0])
        if method.reaches == "healthy" and index:
            hint = f"--to {domains.names[0]}; StarGAN, Fixed-Point GAN and CycleGAN translate both ways"
            raise CapabilityError(f"{name} translates to '{domains.names[0]}' only", where="--to", hint=hint)
        return Target(names[0], np.array(index, np.int64))
    group = [n for n in names if n in predictor.data.exclusive]
    if len(group) > 1:
        raise UsageError(f"{' and '.join(group)} exclude each other", where="--to", hint="name one of them")
    return Target(",".join(names), np.array([n in names for n in domains.names], np.float32))


def all_targets(domains: Domains, config: DataConfig, own: NDArray[Any] | None) -> list[Target]:
    """Every domain of exclusive ones. Of attributes: the image's own, then each changed by itself, as the papers' figures show
    it: a member of ``config.exclusive`` takes the place of its group, any other attribute turns over. own: None: not known, all
    attributes count as off."""
    if domains.exclusive:
        return [Target(name, np.array(k, np.int64)) for k, name in enumerate(domains.names)]
    base = np.zeros(len(domains.names), np.float32) if own is None else own
    group = np.array([name in config.exclusive for name in domains.names])
    found = [Target("own", base)]
    for k, name in enumerate(domains.names):
        code = np.where(group, 0, base).astype(np.float32) if group[k] else base.copy()
        code[k] = 1 if group[k] else 1 - base[k]
        found.append(Target(name, code))
    return found


def translate_many(
    predictor: Predictor,
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    to: Sequence[str],
    *,
    npy: bool = False,
    assume_diseased: bool = False,
) -> dict[str, int]:
    """Translates every input and writes it below ``out/translated``; returns ``{"done", "failed"}``.

    ``translations.csv`` lists what came of each. ``grid.png`` shows up to 64 planes (of a volume its middle slice) in all
    domains that the method reaches, an image's own domain framed where a label table tells it.

    Raises:
        UsageError, CapabilityError: nothing to do, or a domain that cannot be reached; before anything is written.
    """
    out, names, counts = Path(out), Names(), {"done": 0, "failed": 0}
    target = target_of(predictor, to)
    if type(predictor.method).class_at_inference and not assume_diseased and not _knows_labels(inputs):
        hint = "give a labels.csv, or --assume-diseased"
        raise UsageError("the method takes images known to be diseased only", where="these inputs have no labels", hint=hint)
    rows, grid = _rows_by_path(inputs), _Grid(predictor)
    todo = sources(inputs)
    first = next(todo)
    with (
        replacing(out / "translations.csv") as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for source in _chain(first, todo):
            try:
                if type(predictor.method).class_at_inference and not assume_diseased and source.label != DISEASED:
                    raise CapabilityError(
                        f"{source.label}: the method takes images known to be diseased only", where=source.name
                    )
                image = read_case(source.path)
                written = write_picture(
                    translate_image(predictor, image, target.code), image, out / "translated" / names.of(source.name), npy=npy
                )
                grid.add(image, source, rows.get(source.path))
                cells, counts["done"] = [str(written.relative_to(out)), ""], counts["done"] + 1
            except WriteError:
                raise
            except HealError as error:
                cells, counts["failed"] = ["", safe_cell(str(error))], counts["failed"] + 1
            table.writerow([safe_cell(source.name), safe_cell(target.title), *cells])
            file.flush()
    grid.write(out / "grid.png")
    return counts


@torch.no_grad()
@single_precision()
def translate_planes(predictor: Predictor, planes: NDArray[np.float32], codes: NDArray[Any]) -> NDArray[np.float32]:
    """planes (N, C, S, S) in [-1, 1], codes (N,) or (N, K) -> (N, C, S, S) in [-1, 1].

    Raises:
        DataError: an answer is not a number.
    """
    x = torch.as_tensor(planes).to(predictor.device)
    y = predictor.method.translate_to(x, torch.as_tensor(codes).to(predictor.device)).float().cpu().numpy()
    if not np.isfinite(y).all():
        raise DataError("the method's answer is not a number", hint=ADVICE)
    return y


def translate_image(predictor: Predictor, image: Image, code: NDArray[Any]) -> NDArray[np.float32]:
    """The image or volume in the target domain: of the image's shape (or without its colour), in its own units. Slices of
    nothing but background stay as they are."""
    stats = stats_of(image, predictor.preprocessing)
    if not image.is_volume:
        plane, padding = plane_of(image, 0, None)
        return _translated(predictor, [(plane, padding)], stats, code)[0]
    axis = plane_axis(image, predictor.preprocessing.config.axis)
    result = np.array(predictor.preprocessing.to_channels(image.array, colour=image.colour), np.float32)
    used = [i for i in range(n_slices(image, axis)) if not is_background(*plane_of(image, i, axis), stats)]
    for start in range(0, len(used), predictor.batch_size):
        part = used[start : start + predictor.batch_size]
        planes = _translated(predictor, [plane_of(image, i, axis) for i in part], stats, code)
        for index, plane in zip(part, planes, strict=True):
            put_plane(result, plane, index, axis, like=image)
    return result


def _translated(
    predictor: Predictor, planes: Sequence[tuple[NDArray[Any], Any]], stats: Mapping[str, Any], code: NDArray[Any]
) -> list[NDArray[np.float32]]:
    p = predictor.preprocessing
    seen = np.stack([p.normalise(p.prepare(plane, stats, padding), stats) for plane, padding in planes])
    answers = translate_planes(predictor, seen, np.repeat(code[None], len(seen), axis=0))
    centre, half = p.limits(stats)
    return [
        p.restore(y * np.float32(half) + np.float32(centre), plane.shape[:2], outside=_outside(p, plane, stats))
        for y, (plane, _) in zip(answers, planes, strict=True)
    ]


def _outside(preprocessing: Preprocessing, plane: NDArray[Any], stats: Mapping[str, Any]) -> NDArray[np.float32]:
    """What a crop cut off stays the input's."""
    base = preprocessing.to_channels(plane).astype(np.float32)
    return np.where(np.isfinite(base), base, np.float32(stats["low"]))


def _knows_labels(inputs: Path | str | Sequence[Path | str]) -> bool:
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    return any(Path(p).suffix.lower() == ".csv" or (Path(p) / TABLE_NAME).is_file() for p in given)


def _rows_by_path(inputs: Path | str | Sequence[Path | str]) -> dict[Path, Row]:
    """Rows of the label tables and class folders among the inputs, by file."""
    found: dict[Path, Row] = {}
    for path in map(Path, [inputs] if isinstance(inputs, str | Path) else inputs):
        if path.is_dir() or path.suffix.lower() == ".csv":
            try:
                table = read_table(path)
            except HealError:
                continue  # the sources say what is wrong with it
            found |= {table.file(row): row for row in table}
    return found


def _chain(first: Source, rest: Iterator[Source]) -> Iterator[Source]:
    yield first
    yield from rest


@dataclass(frozen=True)
class _Labelled:
    label: str
    row: Row


class _Grid:
    """Collects the picture of all target domains, an image a row."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.rows, self.titles = predictor, [], []  # type: ignore[var-annotated]

    def add(self, image: Image, source: Source, row: Row | None) -> None:
        if len(self.rows) == GRID_ROWS:
            return
        p, method = self.predictor.preprocessing, self.predictor.method
        stats, own = stats_of(image, p), self._own(row)
        axis = plane_axis(image, p.config.axis) if image.is_volume else None
        plane, padding = plane_of(image, n_slices(image, axis) // 2 if axis is not None else 0, axis)
        x = p.normalise(p.prepare(plane, stats, padding), stats)
        targets = all_targets(method.spec.domains, self.predictor.data, own)
        if method.reaches == "healthy":
            targets = targets[:1]
        answers = translate_planes(
            self.predictor, np.repeat(x[None], len(targets), axis=0), np.stack([t.code for t in targets])
        )
        framed = [own is not None and bool(np.array_equal(t.code, own)) for t in targets]
        self.titles = ["input", *(t.title for t in targets)]
        self.rows.append((PurePath(source.name).name, [Cell(x), *(Cell(y, f) for y, f in zip(answers, framed, strict=True))]))

    def _own(self, row: Row | None) -> NDArray[Any] | None:
        if row is None:
            return None
        try:
            code = codes([_Labelled(row.label, row)], self.predictor.data, self.predictor.method.spec.domains)[0]
        except UsageError:
            return None  # the table lacks the columns of the training data
        return None if self.predictor.method.spec.domains.exclusive and code < 0 else np.asarray(code)

    def write(self, path: Path) -> None:
        if self.rows:
            write_png(path, write_grid(self.titles, self.rows))
