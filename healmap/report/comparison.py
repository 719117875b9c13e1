"""``write_comparison``: several evaluations of the same images on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import drawings as d
from .page import Evaluation, at, png, read_evaluation, write_page
from .pictures import tiles
from .report import FIGURES, GLANCE, PERCENT, facts, scales
from .verdict import summary, verdicts


def write_comparison(evaluations: Mapping[str, Path], out: Path) -> Path:
    """One page with the runs side by side: figures, curves, and the same images healed by each.

    evaluations: name -> a folder written by ``healmap evaluate``, in the order shown. The trivial baselines are those of the
    first; they depend on the data alone.

    Raises:
        UsageError: no evaluation, one is not complete, or they are of different images.
    """
    if not evaluations:
        raise UsageError("nothing to compare", hint="name at least one evaluation")
    runs = {name: read_evaluation(folder) for name, folder in evaluations.items()}
    first = next(iter(runs.values()))
    for name, run in runs.items():
        if run.protocol["data"]["fingerprint"] != first.protocol["data"]["fingerprint"]:
            raise UsageError(
                f"'{name}' was evaluated on other images than '{next(iter(runs))}'", hint="evaluate all on one split"
            )
    colours = dict(zip(runs, (d.SERIES[k % len(d.SERIES)] for k in range(len(runs))), strict=True))
    baselines = {d.NAMES[k]: first.metrics["baseline"][k] for k in first.metrics.get("baseline", {})}
    trees = {name: run.metrics for name, run in runs.items()} | baselines
    shades = colours | {d.NAMES[k]: d.COLOURS[k] for k in first.metrics.get("baseline", {})}
    rows = d.forest_rows(trees, GLANCE)
    verdict = {name: verdicts(run.metrics) for name, run in runs.items()}
    return write_page(
        "comparison.html",
        Path(out),
        title="Comparison: " + ", ".join(runs),
        runs=runs,
        first=first,
        versions=first.protocol["versions"],
        notes=list(dict.fromkeys(n for run in runs.values() for n in run.protocol["notes"] + run.protocol["data"]["notes"])),
        verdicts={name: (summary(found), found) for name, found in verdict.items()},
        glance=d.forest(rows, shades) if rows else None,
        names=list(trees),
        table=table(trees),
        plots=[p for p in _plots(runs, colours, first) if p],
        cases=cases(runs),
        scales=[(name, bars) for name, run in runs.items() if (bars := scales(run))],
        training=[(name, curves) for name, run in runs.items() if (curves := d.training_curves(run.log, 8))],
        facts={name: facts(run.protocol) for name, run in runs.items()},
    )


def table(trees: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of rows, one figure per run and baseline."""
    groups = []
    for group, figures in FIGURES.items():
        rows = []
        for path, (title, meaning) in figures.items():
            found = [at(tree, path) for tree in trees.values()]
            if any(f is not None for f in found):
                rows.append({"title": title, "meaning": meaning, "figures": found, "percent": path in PERCENT})
        groups.append({"title": group, "rows": rows})
    return groups


def _plots(runs: Mapping[str, Evaluation], colours: Mapping[str, str], first: Evaluation) -> list[str | None]:
    made = []
    for kind, paint in (("roc", d.roc_curves), ("froc", d.froc_curves)):
        named = {name: (run.curves[kind]["method"], colours[name]) for name, run in runs.items()}
        for baseline in ("threshold", "thumbnail"):
            if baseline in first.curves[kind]:
                named[d.NAMES[baseline]] = (first.curves[kind][baseline], d.COLOURS[baseline])
        made.append(paint(named))
    return [*made, *(d.score_histogram(run, title=f"Scores: {name}") for name, run in runs.items())]


def cases(runs: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """The images that were set down for every method alike: the input once, then each run's answers."""
    by_run = {name: {row["key"]: row for row in run.rows if "common" in row["roles"]} for name, run in runs.items()}
    keys = [key for key in next(iter(by_run.values())) if all(key in rows for rows in by_run.values())]
    found = []
    for key in keys:
        shown = {name: tiles(run, by_run[name][key]["number"]) for name, run in runs.items()}
        some = by_run[next(iter(runs))][key]
        answers = [
            {
                "name": name,
                "score": by_run[name][key]["score"],
                "dice": by_run[name][key]["dice"],
                "tiles": [{"title": title, "src": png(picture)} for title, picture in made.items() if title != "input"],
            }
            for name, made in shown.items()
        ]
        found.append({**some, "input": png(shown[next(iter(runs))]["input"]), "answers": answers})
    return found
