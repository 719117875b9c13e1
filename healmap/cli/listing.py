"""How the command line shows things: tables of methods, recipes, data sets, faults and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid

if TYPE_CHECKING:
    from ..data.check import Report
    from ..data.table import Table


def _console() -> Console:
    import sys

    # Piped output is read by programs: no wrapping to a guessed terminal width.
    return Console() if sys.stdout.isatty() else Console(width=200)


def methods() -> None:
    """Every method: what it may see, what it gives."""
    from .. import methods as registry

    grid = Grid(title="methods")
    for head in ("name", "learns from", "gives", "what it is"):
        grid.add_column(head, overflow="fold", no_wrap=head == "name")
    for name in registry.names():
        method = registry.get(name)
        gives = ["score"] + ["map"] * method.localises + ["healed image"] * method.heals
        gives += ["any domain"] * (method.reaches == "all") + ["(class needed)"] * method.class_at_inference
        grid.add_row(name, method.needs.value, ", ".join(gives), method.title)
    _console().print(grid)


def recipes() -> None:
    """Every recipe: the method and the experiment whose settings it holds."""
    from .. import recipes as registry

    grid = Grid(title="recipes (usable wherever a method name is)")
    for head in ("name", "method", "settings of"):
        grid.add_column(head, overflow="fold", no_wrap=head != "settings of")
    for name in registry.names():
        grid.add_row(name, registry.get(name).method_name, registry.describe(name))
    _console().print(grid)


def datasets() -> None:
    """Data sets that we know and what to beware of."""
    from ..data.known import KNOWN

    grid = Grid(title="data sets (none is downloaded; point --data at your copy)", show_lines=True)
    for head in ("name", "what", "terms", "beware"):
        grid.add_column(head, overflow="fold", no_wrap=head == "name")
    for known in KNOWN:
        grid.add_row(known.name, known.what, known.terms, known.beware)
    _console().print(grid)


def faults(report: Report) -> int:
    """The report of ``healmap data check``: counts, then every fault. Exit code 2 when the table cannot be used as it is."""
    for line in report.lines():
        print(line)
    return 2 if report.faults else 0


def split_counts(table: Table) -> None:
    """Images and patients per split and label."""
    images = Counter((row.split, row.label) for row in table.rows)
    patients: dict[tuple[str, str], set[str]] = {}
    for row in table.rows:
        patients.setdefault((row.split, row.label), set()).add(row.patient_id or row.path)
    grid = Grid(title=f"{len(table.rows)} images")
    for head in ("split", "label", "images", "patients"):
        grid.add_column(head)
    for split, label in sorted(images, key=lambda key: (("train", "val", "test", "").index(key[0]), key[1])):
        grid.add_row(split, label, str(images[split, label]), str(len(patients[split, label])))
    _console().print(grid)


def figures(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every ``{"value", "ci95", "n"}`` of a nested metrics object with its dotted name."""
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if "value" in value and "n" in value:
                yield name, value
            else:
                yield from figures(value, name + ".")


def metrics(tree: Mapping[str, Any]) -> None:
    """The main figures of an evaluation with their intervals; ``metrics.json`` holds them all."""
    grid = Grid(title="figures with 95 % intervals over patients")
    for head in ("figure", "value", "95 % interval", "n"):
        grid.add_column(head, justify="left" if head == "figure" else "right", no_wrap=True)
    shown = {part: tree[part] for part in ("image", "pixel", "lesion", "healthy", "baseline") if part in tree}
    for name, figure in figures(shown):
        grid.add_row(name, *cells(figure), str(figure["n"]))
    _console().print(grid)


def comparison(tree: Mapping[str, Any]) -> None:
    """The runs and the trivial baselines with their figures; ``table.md`` and ``table.csv`` say more."""
    from rich.markup import escape

    from ..report.compared import FIGURES, baselines, intervals, name_of_baseline, standing, valued
    from ..report.page import at

    grid = Grid(title=intervals(tree))
    for head in ("run", *FIGURES.values(), "beside the baselines"):
        grid.add_column(head, overflow="fold")
    for row in tree["runs"]:
        grid.add_row(escape(row["run"]), *(valued(at(row["figures"], path)) for path in FIGURES), standing(row)[1])
    for shown, kind in baselines(tree):
        figures = tree["baselines"]["figures"][shown][kind]
        grid.add_row(name_of_baseline(shown, kind), *(valued(at(figures, path)) for path in FIGURES), "")
    for bad in tree["failed"]:
        grid.add_row(escape(bad["run"]), *[""] * len(FIGURES), "not compared")
    _console().print(grid)


def cells(figure: Mapping[str, Any]) -> tuple[str, str]:
    """Value and interval as text; an undefined figure is a dash."""
    value, interval = figure["value"], figure.get("ci95")
    if value is None:
        return "–", "–"
    low, high = interval if interval and None not in interval else (None, None)
    return f"{value:.4f}", "–" if low is None else f"{low:.4f} to {high:.4f}"
