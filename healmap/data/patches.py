"""A2B-GAN's simulated anomaly on any set of healthy images: the pixels of a random square become their mean.

A2B-GAN (ICLR 2022 submission), sections 4.3 and 4.4; no program was released. The protocol: images known to be healthy, an
unlabelled mixture, and a labelled test set, no image in two places. What the paper leaves open is in docs/made-data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnreadableError, UsageError
from ..experiment import DataConfig
from ..io.atomic import write_json
from ..io.image import Image
from ..types import DISEASED, HEALTHY, SPLITS, UNKNOWN
from .cache import in_threads, pseudonym
from .case import plane_of, read_case
from .faults import refuse, table_faults
from .made import new_folder, refuse_used, save_png
from .preprocess import Preprocessing, Square, cut, resize
from .split import split_table
from .table import COLUMNS, TABLE_NAME, Row, Table, read_table, write_table

EXTRA = ("twin", "truth_label", "truth_mask", "source")
_AS_STORED = Preprocessing(DataConfig(channels=3))  # grey stays grey, colour stays colour


@dataclass(frozen=True)
class Counts:
    """Images of each part; section 4.4. Validation images are ours: thresholds and the best weights are chosen on them."""

    known: int = 5000  # train, label healthy: set B
    mixed_healthy: int = 3500  # train, label unknown: set A ...
    mixed_diseased: int = 1500  # ... with a square
    val_healthy: int = 500
    val_diseased: int = 500
    test_healthy: int = 2500
    test_diseased: int = 2500

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Counts:
        """From seven numbers, or five without those of validation.

        Raises:
            UsageError: another number of them, one below 0, no healthy one known, or no test.
        """
        if len(numbers) not in (5, 7) or min(numbers) < 0:
            hint = "known healthy, mixed healthy, mixed diseased, [val healthy, val diseased,] test healthy, test diseased"
            raise UsageError(f"counts {','.join(map(str, numbers))} are not five or seven numbers", hint=hint)
        counts = cls(*(numbers if len(numbers) == 7 else (*numbers[:3], 0, 0, *numbers[3:])))
        if not counts.known or not counts.mixed_diseased:
            raise UsageError(
                "there is nothing to learn from", hint="some known healthy and some mixed diseased images are needed"
            )
        return counts

    @property
    def of_splits(self) -> tuple[int, int, int]:
        known, healthy, diseased, *rest = astuple(self)
        return known + healthy + diseased, rest[0] + rest[1], rest[2] + rest[3]

    def scaled(self, factor: float) -> Counts:
        return Counts(*(int(n * factor) for n in astuple(self)))

    def __str__(self) -> str:
        a, b, c, d, e, f, g = astuple(self)
        return f"{a} known healthy, {b} + {c} mixed, {d} + {e} for validation, {f} + {g} for testing (healthy + diseased)"


def make_patches(
    source: Path | str | Table,
    out: Path | str,
    *,
    side: int = 40,
    size: int | None = None,
    seed: int = 0,
    counts: Counts | None = None,
    tell: Callable[[str], None] = lambda text: None,
    workers: int = 0,
) -> Table:
    """Writes ``labels.csv``, ``images/``, ``masks/``, ``twins/`` and ``dataset.json`` to ``out``.

    The healthy images of ``source`` are used, or all of them when none has a label. Its splits are kept; without any, patients
    are divided. Mixed images are ``unknown``; their true label and mask stand in ``truth_label`` and ``truth_mask``.

    Args:
        side: of the square, in pixels of the image as it is written.
        size: the centre square of each image, resized to this many pixels; None: images as they are. The paper: 128.
        counts: None: the paper's, scaled down in their proportions where the source is smaller.
        tell: called with a sentence about every such decision; they stand in ``dataset.json`` as well.
        workers: threads; 0: a few.

    Raises:
        UsageError: ``out`` is not empty, too few images, an image smaller than the square, or a volume.
        UnreadableError and its kin: an image cannot be read.
    """
    table, out = source if isinstance(source, Table) else read_table(source), Path(out)
    if side < 1 or (size is not None and size < side) or seed < 0:
        asked = f"side {side}, size {size}, seed {seed}"
        raise UsageError(
            f"no square of {side} pixels can be drawn ({asked})", hint="side at least 1, size at least side, seed 0 or more"
        )
    refuse_used(out)
    refuse(table_faults(table), table.name or str(table.root))
    parts, notes = _divide(table, counts, seed)
    for note in notes:
        tell(note)
    jobs = [_Job(n, row, *part) for n, (row, part) in enumerate((row, part) for part, rows in parts for row in rows)]
    with new_folder(out) as folder:
        for name in ("images", "masks", "twins"):
            (folder / name).mkdir()
        rows = tuple(in_threads(lambda job: _make(folder, table, job, side, size, seed), jobs, workers))
        made = Table(folder, rows, (*COLUMNS, *EXTRA), TABLE_NAME)
        write_table(made, folder / TABLE_NAME)
        numbers = {f"{split} {label} {truth}": len(chosen) for (split, label, truth), chosen in parts}
        facts = {"made_by": "healmap data make patches", "side": side, "size": size, "seed": seed, "images": numbers}
        write_json(folder / "dataset.json", {**facts, "notes": notes})
    return replace(made, root=out)


Part = tuple[str, str, str]  # split, label, true label


@dataclass(frozen=True)
class _Job:
    number: int
    row: Row
    split: str
    label: str
    truth: str


def _divide(table: Table, counts: Counts | None, seed: int) -> tuple[list[tuple[Part, list[Row]]], list[str]]:
    """The rows of each part, and what was decided."""
    where, notes = table.name or str(table.root), []
    usable = [r for r in table if r.label == HEALTHY]
    if usable:
        if len(usable) < len(table):
            notes.append(f"only the {len(usable)} healthy of {len(table)} images are used")
    elif all(r.label == UNKNOWN for r in table):
        usable = list(table)
        notes.append(f"no image has a label: all {len(usable)} are taken as healthy")
    else:
        raise UsageError("no image is healthy", where=where, hint="squares are drawn on healthy images")
    wanted = counts or Counts()
    chosen = replace(table, rows=tuple(usable))
    if not any(r.split for r in usable):
        total = sum(wanted.of_splits)
        chosen = split_table(chosen, [n / total for n in wanted.of_splits], seed)
        notes.append(f"the source has no splits: its patients were divided {':'.join(map(str, wanted.of_splits))}, seed {seed}")
    have = {split: sorted(chosen.select(split=split).rows, key=lambda r: r.path) for split in SPLITS}
    if not have["val"] and counts is None:
        wanted = replace(wanted, val_healthy=0, val_diseased=0)
        notes.append("the source has no validation split: none is made")
    enough = min((len(have[s]) / n for s, n in zip(SPLITS, wanted.of_splits, strict=True) if n), default=0)
    if enough < 1:
        found = ", ".join(f"{len(rows)} {split}" for split, rows in have.items())
        scaled = wanted.scaled(enough)
        if counts is not None or any(a and not b for a, b in zip(astuple(wanted), astuple(scaled), strict=True)):
            raise UsageError(
                f"too few images: {found}; wanted are {wanted}", where=where, hint="give smaller --counts, or more images"
            )
        notes.append(f"the source has {found} images: the paper's counts were scaled down to {scaled}")
        wanted = scaled
    orders = {s: np.random.default_rng([seed, k]).permutation(len(have[s])) for k, s in enumerate(SPLITS)}
    stacks = {s: iter([have[s][i] for i in orders[s]]) for s in SPLITS}
    labels = (
        ("train", HEALTHY, HEALTHY), ("train", UNKNOWN, HEALTHY), ("train", UNKNOWN, DISEASED),
        ("val", HEALTHY, HEALTHY), ("val", DISEASED, DISEASED), ("test", HEALTHY, HEALTHY), ("test", DISEASED, DISEASED),
    )  # fmt: skip
    return [(part, [next(stacks[part[0]]) for _ in range(n)]) for part, n in zip(labels, astuple(wanted), strict=True)], notes


def patched(image: NDArray[Any], top: int, left: int, side: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(image with the square's pixels at the square's mean, for each channel alone; the square as a mask).

    image: (H, W) or (H, W, C); whole numbers stay whole.
    """
    out, mask = image.copy(), np.zeros(image.shape[:2], np.bool_)
    square = (slice(top, top + side), slice(left, left + side))
    mean = image[square].mean(axis=(0, 1), dtype=np.float64)
    out[square] = np.rint(mean) if image.dtype.kind in "iu" else mean
    mask[square] = True
    return out, mask


def _make(folder: Path, table: Table, job: _Job, side: int, size: int | None, seed: int) -> Row:
    file = read_case(table.file(job.row))
    image, name, mask, twin = _plane(file, job.row, size), f"{job.number:06d}", "", ""
    if job.truth == DISEASED:
        room = [n - side for n in image.shape[:2]]
        if min(room) < 0:
            sizes = " x ".join(map(str, image.shape[:2]))
            raise UsageError(
                f"a square of {side} pixels does not fit into {sizes}", where=job.row.path, hint="use a smaller --side"
            )
        top, left = np.random.default_rng([seed, len(SPLITS), job.number]).integers(0, np.array(room) + 1)
        if job.label == DISEASED:
            twin = _save(folder, f"twins/{name}", image)
        image, square = patched(image, int(top), int(left), side)
        mask = f"masks/{name}.png"
        save_png(folder / mask, square.astype(np.uint8) * 255)
    aside = job.label == UNKNOWN  # what it truly is stays out of the columns that training reads
    extra = {"twin": twin, "truth_label": job.truth, "truth_mask": mask if aside else "", "source": job.row.path}
    path, patient = _save(folder, f"images/{name}", image), job.row.patient_id or pseudonym(file.patient_id) or job.row.path
    return Row(path, job.label, patient, job.split, "" if aside else mask, extra=extra)


def _plane(image: Image, row: Row, size: int | None) -> NDArray[Any]:
    """(H, W[, 3]); uint8, uint16 or float32."""
    if image.is_volume:
        raise UsageError("a volume", where=row.path, hint="squares are drawn on planes: give single images")
    plane = _AS_STORED.to_channels(plane_of(image, 0, None)[0])
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        raise UnreadableError("the image holds values that are not finite", where=row.path, hint="leave it out or repair it")
    if size is None:
        return plane
    height, width = plane.shape[:2]
    least = min(height, width)
    return resize(cut(plane, Square(height, width, least, (height - least) // 2, (width - least) // 2), 0), (size, size))


def _save(folder: Path, name: str, image: NDArray[Any]) -> str:
    """PNG where the reader takes it, else TIFF; the name with its suffix."""
    if image.dtype == np.uint8 or (image.dtype == np.uint16 and image.ndim == 2):
        save_png(folder / f"{name}.png", image)
        return f"{name}.png"
    import tifffile

    tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack" if image.ndim == 2 else "rgb")
    return f"{name}.tif"
