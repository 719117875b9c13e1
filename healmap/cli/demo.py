"""``healmap demo``: phantoms, two methods trained from scratch, both evaluated on held-out phantom patients, one report."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from .. import api
from .listing import cells

# Minutes chosen so that the whole demo ends within six minutes on two cores; ours.
DEMO_RUNS = {"restoration": ("restoration-small", 1.3), "fixed-point-gan": ("fixed-point-gan-small", 2.6)}
SHOWN = (
    ("image AUROC", ("image", "auroc")),
    ("pixel AP", ("pixel", "ap")),
    ("Dice at the validation threshold", ("pixel", "dice")),
    ("Dice at the best threshold", ("pixel", "dice_best")),
    ("image AUROC of thumbnails (trivial)", ("baseline", "thumbnail", "image", "auroc")),
    ("image AUROC of intensity (trivial)", ("baseline", "threshold", "image", "auroc")),
)


def demo(out: Path, *, minutes: Sequence[float] | None, seed: int) -> int:
    """Runs the demo into ``out`` and prints the table and the path of the report. Everything below ``out`` is replaced."""
    start = time.monotonic()
    data = out / "phantoms"
    for part in ("phantoms", *DEMO_RUNS):
        shutil.rmtree(out / part, ignore_errors=True)
    print("phantoms: brain-like slices with made-up lesions", flush=True)
    table = api.make_phantoms(data, patients=60, size=64, seed=seed)
    print(f"{len(table.rows)} images of 60 patients in {data}", flush=True)
    figures: dict[str, Mapping[str, Any]] = {}
    for k, (name, (recipe, budget)) in enumerate(DEMO_RUNS.items()):
        budget = budget if minutes is None else minutes[k]
        print(f"\n{name}: training from scratch for {60 * budget:.0f} s", flush=True)
        run = api.train(recipe, data, out / name, minutes=budget, seed=seed)
        print(f"{name}: evaluating on held-out patients", flush=True)
        figures[name] = api.evaluate(run, data, out / name / "test", split="test")
    from ..report.comparison import write_comparison

    write_comparison({name: out / name / "test" for name in figures}, out / "report.html")
    show(figures)
    print(f"\n{time.monotonic() - start:.0f} s in all. Report: {out / 'report.html'}")
    return 0


def show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """One column per method, one row per figure."""
    grid = Grid(title="held-out phantom patients, value (95 % interval)")
    grid.add_column("figure", no_wrap=True)
    for name in figures:
        grid.add_column(name, justify="right")
    for label, path in SHOWN:
        row = []
        for tree in figures.values():
            figure: Any = tree
            for key in path:
                figure = figure[key]
            value, interval = cells(figure)
            row.append(f"{value} ({interval})")
        grid.add_row(label, *row)
    Console(width=None if sys.stdout.isatty() else 140).print(grid)
