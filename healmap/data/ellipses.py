"""DeScarGAN's synthetic data set in files: two classes of ellipses, healthy twins, signed truth and masks where they are kept.

``fair``, the default: nothing but the anomaly tells the classes apart. ``published``: as the released script makes them. What
differs is described in docs/made-data.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UsageError
from ..io.atomic import write_json, write_text
from ..metrics.similarity import otsu
from ..types import DISEASED, HEALTHY, SPLITS
from . import published_ellipses as published
from .cache import in_threads
from .ellipse_scenes import TOP, Floats, Scene, draw_scene, fair_picture
from .made import in_16_bits, new_folder, refuse_used, save_png
from .table import COLUMNS, TABLE_NAME, Row, Table, write_table

Variant = Literal["fair", "published"]
EXTRA = ("twin", "truth", "centre")
SIZES = (32, 512)  # smaller: contours melt together; larger: the script's lines get holes


@dataclass(frozen=True)
class _Job:
    """One picture: the ``number``-th of its split; ``keep``: with its twin and its truth."""

    split: str
    number: int
    label: str
    keep: bool

    @property
    def name(self) -> str:
        return f"{self.split}_{self.number:05d}"


def make_ellipses(
    out: Path | str,
    *,
    train: int = 2000,
    val: int = 200,
    test: int = 200,
    size: int = 256,
    seed: int = 0,
    variant: Variant = "fair",
    pairs: bool = False,
    workers: int = 0,
) -> Table:
    """Writes ``labels.csv``, ``images/``, ``twins/``, ``truth/``, ``masks/``, ``dataset.json`` and ``README.md`` to ``out``.

    Every picture is of a scene of its own. The n-th picture of a split is a function of seed, size and variant alone: neither
    the counts nor the number of threads matter.

    Args:
        train, val, test: pictures of either class; the paper's 2,000, 200, 200.
        size: side in pixels, 32 to 512; the paper's 256. The scene scales with it.
        pairs: diseased training pictures keep their twin and truth as well; those of ``val`` and ``test`` always do.
        workers: threads; 0: a few.

    Raises:
        UsageError: ``out`` is not empty, or a number makes no sense.
    """
    out, counts = Path(out), {"train": train, "val": val, "test": test}
    _check(counts, size, seed, variant)
    refuse_used(out)
    jobs = [
        _Job(split, 2 * k + ill, DISEASED if ill else HEALTHY, keep=bool(ill) and (pairs or split != "train"))
        for split in SPLITS
        for ill in (0, 1)
        for k in range(counts[split])
    ]
    with new_folder(out) as folder:
        for name in ("images", "twins", "truth", "masks"):
            (folder / name).mkdir()
        made = list(in_threads(lambda job: _make(folder, job, size, seed, variant), jobs, workers))
        measured = {job: value for job, (_, value) in zip(jobs, made, strict=True) if value is not None}
        chosen = [v for job, v in measured.items() if job.split != "train"] or list(measured.values())
        mean_otsu = float(np.mean(chosen)) if chosen else None
        threshold = published.THRESHOLD if variant == "published" else mean_otsu
        if threshold is not None:
            for _ in in_threads(lambda job: _mask(folder, job, threshold), list(measured), workers):
                pass
        table = Table(folder, tuple(row for row, _ in made), (*COLUMNS, *EXTRA), TABLE_NAME)
        write_table(table, folder / TABLE_NAME)
        write_json(folder / "dataset.json", _facts(variant, size, seed, counts, pairs, mean_otsu, threshold))
        write_text(folder / "README.md", _readme(variant, size, seed, counts))
    return replace(table, root=out)


def _check(counts: Mapping[str, int], size: int, seed: int, variant: str) -> None:
    if variant not in ("fair", "published"):
        raise UsageError(f"no variant '{variant}'", hint="fair or published")
    if min(counts.values()) < 0 or not any(counts.values()):
        asked = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise UsageError(f"cannot make that many pictures ({asked})", hint="no count below 0, and one above")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"cannot draw ellipses on {size} pixels", hint=f"from {SIZES[0]} to {SIZES[1]}; the paper has 256")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", hint="0, 1, 2, ...")


def scene(split: str, number: int, seed: int, variant: Variant) -> Scene:
    """The scene of the ``number``-th picture of a split: even numbers are healthy, odd ones diseased."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    return draw_scene(rng, fair=variant == "fair")


def pictures(scene: Scene, size: int, variant: Variant) -> tuple[Floats, Floats, Floats]:
    """(healthy, diseased, truth = diseased - healthy), (size, size), in [-1, 1] and [-2, 2]; the published truth is another
    difference, see :func:`healmap.data.published_ellipses.pictures`."""
    if variant == "published":
        return published.pictures(scene, size)
    healthy, diseased = (fair_picture(scene, size, diseased=ill) for ill in (False, True))
    return healthy, diseased, diseased - healthy


def _make(folder: Path, job: _Job, size: int, seed: int, variant: Variant) -> tuple[Row, float | None]:
    """(row, Otsu's threshold of |truth| if that is kept)."""
    shown, level = scene(job.split, job.number, seed, variant), None
    if variant == "fair" and not job.keep:  # the other class need not be drawn
        picture = fair_picture(shown, size, diseased=job.label == DISEASED)
    else:
        healthy, diseased, truth = pictures(shown, size, variant)
        picture = diseased if job.label == DISEASED else healthy
        if job.keep:
            save_png(folder / f"twins/{job.name}.png", in_16_bits(healthy))
            np.save(folder / f"truth/{job.name}.npy", truth.astype(np.float32))
            level = otsu(np.abs(truth))
    save_png(folder / f"images/{job.name}.png", in_16_bits(picture))
    centre = ",".join(f"{(c + 0.5) * size / 256 - 0.5:g}" for c in (shown.small.column, shown.small.row))
    extra = {"centre": centre, "twin": "", "truth": ""}
    if job.keep:
        extra |= {"twin": f"twins/{job.name}.png", "truth": f"truth/{job.name}.npy"}
    mask = f"masks/{job.name}.png" if job.keep else ""
    return Row(f"images/{job.name}.png", job.label, job.name, job.split, mask, extra=extra), level


def _mask(folder: Path, job: _Job, threshold: float) -> None:
    truth = np.load(folder / f"truth/{job.name}.npy", allow_pickle=False)
    save_png(folder / f"masks/{job.name}.png", (np.abs(truth) > threshold).astype(np.uint8) * 255)


def _facts(
    variant: Variant,
    size: int,
    seed: int,
    counts: Mapping[str, int],
    pairs: bool,
    mean_otsu: float | None,
    threshold: float | None,
) -> dict[str, Any]:
    fair = variant == "fair"
    return {
        "made_by": "healmap data make ellipses",
        "variant": variant,
        "size": size,
        "seed": seed,
        "pictures_per_class": dict(counts),
        "pairs": pairs,
        "value": "pixel / 65535 * 2 - 1",
        "intensity": f"2 (I + {TOP:g}) / {1 + TOP:g} - 1 of the scene's I in [-{TOP:g}, 1], in both classes"
        if fair
        else "healthy pictures (twins too): stretched to [-1, 1] by their own extremes; diseased ones: as drawn",
        "truth": "diseased - healthy of the values stored, before rounding"
        if fair
        else "diseased - healthy before any stretching",
        "mask": "|truth| > mask_threshold",
        "mask_threshold": threshold,
        "mean_otsu": mean_otsu,
        "centre": "of the small ellipse, x,y in pixels",
    }


def _readme(variant: Variant, size: int, seed: int, counts: Mapping[str, int]) -> str:
    lines = [
        f"# Ellipses ({variant})",
        "",
        f"DeScarGAN's synthetic data set, made anew: {size} x {size}, 16-bit grey, seed {seed}. No terms apply.",
        "",
        "| split | healthy | diseased |",
        "|---|---|---|",
        *(f"| {split} | {n} | {n} |" for split, n in counts.items()),
    ]
    return (
        "\n".join(lines)
        + """

`labels.csv`: `twin` is the same scene without the deformation, `truth` the signed difference (float32, numpy), `mask` where
it is large, `centre` the small ellipse's. Values, threshold and settings: `dataset.json`. Read with `data.normalisation=none`.

Made with `healmap data make ellipses`. Figures measured here say whether a program works, nothing about real images.
"""
    )
