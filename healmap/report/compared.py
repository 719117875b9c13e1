"""``write_compared``: a comparison as ``table.csv``, ``table.md`` and one self-contained page, ``compare.html``."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..detection.overlay import CONTOUR, Picture, palette
from ..errors import UsageError
from ..io.atomic import safe_cell, write_bytes, write_text
from ..io.damage import DAMAGED
from . import drawings as d
from .page import at, interval, number, png, write_page
from .pictures import TRUTH, grey_tile, map_tile, outlined
from .verdict import Kind, clear, kind_of, margins, verdicts

FIGURES = {
    "image.auroc": "image AUROC", "image.ap": "image AP", "pixel.ap": "pixel AP", "pixel.dice": "Dice",
    "pixel.dice_best": "best Dice",
}  # fmt: skip
COLUMNS = ("run", "method", "needs", "steps", "training time", "peak memory", *FIGURES.values(), "beside the baselines")
BASELINES = {kind: d.NAMES[kind] for kind in ("threshold", "thumbnail")}
ABREAST = 5  # runs beside one another on the page, so that a sheet of paper holds them
SIDES = (128, 192)  # pixels of a tile's longer side
KINDS: Mapping[Kind, tuple[str, str, str]] = {  # colour, mark and words of the drawing
    "better": ("#14589c", "o", "better than the baselines"), "unclear": ("#9a6200", "D", "not clearly better"),
    "worse": ("#a4283f", "X", "loses"),
}  # fmt: skip
MARKUP = re.compile(r"([\\`*_\[\]|~])")
DASH, MINUS = "–", "\N{MINUS SIGN}"


def write_compared(out: Path | str) -> Path:
    """Makes table and page from what ``compare_runs`` left in ``out``; returns the page's path.

    Raises:
        UsageError: the folder holds no complete comparison.
    """
    out = Path(out)
    try:
        tree = json.loads((out / "compare.json").read_text(encoding="utf-8"))
        given = _pictures(out / tree["baselines"]["pictures"])
        pictures = {row["run"]: _pictures(out / row["pictures"]) for row in tree["runs"]}
    except DAMAGED as error:
        raise UsageError(f"not a complete comparison: {error}", where=str(out), hint="run healmap compare again") from None
    write_bytes(out / "table.csv", table_csv(tree).encode("utf-8", "backslashreplace"))
    write_text(out / "table.md", table_md(tree))
    names = list(pictures)
    blocks = [names[k : k + ABREAST] for k in range(0, len(names), ABREAST)]
    return write_page(
        "compared.html",
        out / "compare.html",
        title=f"{len(names)} runs on {tree['data']['name']}, {tree['data']['split']}",
        tree=tree,
        versions=tree["versions"],
        figures=FIGURES,
        rows=[_cells(tree, row) for row in tree["runs"]],
        trivial=[_trivial_cells(tree, shown, kind) for shown, kind in baselines(tree)],
        losing=[row["run"] for row in tree["runs"] if standing(row)[0] == "worse"],
        verdicts={row["run"]: verdicts(metrics(tree, row)) for row in tree["runs"]},
        forest=forest(tree),
        intervals=intervals(tree),
        differences=[_difference_cells(row) for row in tree["runs"] if row.get("difference")],
        blocks=[block(tree, given, {name: pictures[name] for name in names}) for names in blocks],
        bar=png(bar()),
        facts={row["run"]: _facts(row) for row in tree["runs"]},
    )


# ---- words -------------------------------------------------------------------------------------------------------------


def metrics(tree: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A run's figures with the baselines' on the same images, as ``metrics.json`` holds them."""
    return {**row["figures"], "baseline": tree["baselines"]["figures"][row["shown"]], "margin": row["margin"]}


def standing(row: Mapping[str, Any]) -> tuple[Kind, str]:
    """In few words how a run stands beside the baselines. A figure below a baseline's loses; where the interval of the
    difference leaves it open, the words say so."""
    every = margins(row)
    leads: list[tuple[Kind, str]] = [("worse", "loses to"), ("unclear", "not clearly better than")]
    for kind, lead in leads:
        found: dict[str, list[str]] = {}
        for baseline, path, margin in every:
            if kind_of(margin) == kind:
                text = f"{FIGURES[path]} {margin['value']:+.3f}".replace("-", MINUS)
                open_loss = kind == "worse" and not clear(margin)
                found.setdefault(BASELINES[baseline], []).append(f"{text} (not clearly)" if open_loss else text)
        if found:
            return kind, f"{lead} " + "; ".join(f"{words}: {', '.join(texts)}" for words, texts in found.items())
    return ("better", "better than the baselines") if every else ("unclear", "nothing to compare with the baselines")


def beside(row: Mapping[str, Any], path: str) -> Kind:
    """How one figure of a run stands beside the baselines' own."""
    found = [at(row, f"margin.{baseline}.{path}") for baseline in BASELINES]
    kinds = {kind_of(margin) for margin in found if margin is not None and margin["value"] is not None}
    return "worse" if "worse" in kinds else "better" if kinds == {"better"} else "unclear"


def value(figures: Mapping[str, Any], path: str) -> float | None:
    return (at(figures, path) or {}).get("value")


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, minutes below two hours, hours."""
    if seconds is None:
        return DASH
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def memory(megabytes: float | None) -> str:
    return DASH if megabytes is None else f"{megabytes / 1000:.2f} GB"


def valued(figure: Mapping[str, Any] | None) -> str:
    """Value and interval in one cell of text."""
    found, ends = (figure or {}).get("value"), interval(figure)
    return DASH if found is None else f"{number(found)} ({ends})" if ends else number(found)


def intervals(tree: Mapping[str, Any]) -> str:
    count = tree["bootstrap"]["resamples"]
    return f"95 % intervals over {count} resamples of patients." if count else "No intervals: patients were not resampled."


def baselines(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Images and baseline of every row: on the diseased images alone thumbnails, which give no map, have no figure."""
    figures = tree["baselines"]["figures"]
    return [
        (shown, kind)
        for shown, kinds in figures.items()
        for kind, found in kinds.items()
        if shown == "all" or any(value(found, path) is not None for path in FIGURES)
    ]


def name_of_baseline(shown: str, kind: str) -> str:
    return f"{BASELINES[kind]} (trivial)" + ("" if shown == "all" else ", diseased images only")


def _trivial_needs(kind: str) -> str:
    return "images with an image-level label" if kind == "thumbnail" else "nothing; labels choose its summary"


# ---- tables ------------------------------------------------------------------------------------------------------------


def table_csv(tree: Mapping[str, Any]) -> str:
    """Every number of the table in full, an interval in two columns, differences to the reference as well."""
    names = [path.replace(".", "_") for path in FIGURES]
    head = ["run", "method", "recipe", "needs", "images", "patients", "steps", "seconds", "peak_mb"]
    head += [column for name in names for column in _three(name, None)]
    head += ["standing", "beside_baselines"]
    head += [column for name in names for column in _three(f"{name}_minus_reference", None)]
    head.append("error")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    for cells in _csv_rows(tree):
        writer.writerow([_csv_cell(cells.get(column)) for column in head])
    return text.getvalue()


def _csv_rows(tree: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in tree["runs"]:
        kind, words = standing(row)
        cells = {key: row[key] for key in ("run", "method", "recipe", "needs")} | {"standing": kind, "beside_baselines": words}
        cells |= {key: row["evaluated"][key] for key in ("images", "patients")}
        cells |= {key: row["training"][key] for key in ("steps", "seconds", "peak_mb")}
        yield cells | _csv_figures(row["figures"]) | _csv_figures(row.get("difference", {}), "_minus_reference")
    for shown, which in baselines(tree):
        cells = {"run": name_of_baseline(shown, which), "needs": _trivial_needs(which)}
        yield cells | _csv_figures(tree["baselines"]["figures"][shown][which])
    yield from ({"run": bad["run"], "error": bad["error"]} for bad in tree["failed"])


def _csv_figures(figures: Mapping[str, Any], ending: str = "") -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for path in FIGURES:
        cells |= _three(path.replace(".", "_") + ending, at(figures, path))
    return cells


def _three(name: str, figure: Mapping[str, Any] | None) -> dict[str, Any]:
    low, high = (figure or {}).get("ci95") or (None, None)
    return {name: (figure or {}).get("value"), f"{name}_low": low, f"{name}_high": high}


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value).removesuffix(".0") if isinstance(value, float) else safe_cell(str(value))


def table_md(tree: Mapping[str, Any]) -> str:
    """The table for a document: value (95 % interval), losing runs marked; then what failed and what to take note of."""
    data, seen = tree["data"], tree["evaluated"]
    lines = [
        f"{_md(data['name'])}, {data['split']} split: {seen['images']} images of {seen['patients']} patients. "
        f"{intervals(tree)} Dice at the threshold found on validation data, best Dice at the threshold that suits these "
        "labels best.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in tree["runs"]:
        kind, words = standing(row)
        steps, seconds = row["training"]["steps"], row["training"]["seconds"]
        cells = [row["run"], row["method"], row["needs"], DASH if steps is None else f"{steps:,}", duration(seconds)]
        cells += [memory(row["training"]["peak_mb"]), *(valued(at(row["figures"], path)) for path in FIGURES)]
        lines.append("| " + " | ".join([*map(_md, cells), f"**{_md(words)}**" if kind == "worse" else _md(words)]) + " |")
    for shown, which in baselines(tree):
        figures = [valued(at(tree["baselines"]["figures"][shown][which], path)) for path in FIGURES]
        cells = [f"*{name_of_baseline(shown, which)}*", "", _trivial_needs(which), "", "", "", *figures, ""]
        lines.append("| " + " | ".join(cells) + " |")
    for bad in tree["failed"]:
        lines.append(
            "| " + " | ".join([_md(bad["run"]), *[""] * (len(COLUMNS) - 2), f"not compared: {_md(bad['error'])}"]) + " |"
        )
    if tree["notes"]:
        lines += ["", *(f"- {_md(note)}" for note in tree["notes"])]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Text that no Markdown reader takes for a column, a tag, a link or emphasis."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))


# ---- the page ----------------------------------------------------------------------------------------------------------


def _cells(tree: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    kind, words = standing(row)
    training = row["training"]
    return {
        "run": row["run"], "method": row["method"], "needs": row["needs"], "kind": kind, "words": words,
        "steps": DASH if training["steps"] is None else f"{training['steps']:,}",
        "time": duration(training["seconds"]), "memory": memory(training["peak_mb"]),
        "figures": [at(row["figures"], path) for path in FIGURES], "reference": row["run"] == tree["reference"],
    }  # fmt: skip


def _trivial_cells(tree: Mapping[str, Any], shown: str, kind: str) -> dict[str, Any]:
    figures = tree["baselines"]["figures"][shown][kind]
    cells = [at(figures, path) or {"value": None, "reason": "this detector gives no map"} for path in FIGURES]
    return {"run": name_of_baseline(shown, kind), "needs": _trivial_needs(kind), "figures": cells}


def _difference_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": row["run"], "figures": [at(row, f"difference.{path}") for path in FIGURES]}


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    weights, thresholds = row["weights"], row["thresholds"]
    return {
        "method": row["title"], "recipe": row["recipe"], "evaluated": row["evaluated"],
        "weights": f"{weights['name']}, step {weights['step']} ({weights['chosen']})", "SHA-256": weights["sha256"],
        "pixel threshold": f"{number(thresholds['pixel']['value'])}, {thresholds['pixel']['how']}",
        "image threshold": f"{number(thresholds['image']['value'])}, {thresholds['image']['how']}",
        "training": {key: value for key, value in row["training"].items() if value is not None},
        "method settings": row["settings"]["method"], "data settings": row["settings"]["data"],
    }  # fmt: skip


def forest(tree: Mapping[str, Any]) -> str | None:
    """One panel per figure, one line per run, and the baselines as dashed lines across."""
    rows = tree["runs"]
    panels = {path: title for path, title in FIGURES.items() if any(value(row["figures"], path) is not None for row in rows)}
    if not panels:
        return None

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (path, title) in zip(grid, panels.items(), strict=True):
            _panel(axes, tree, path)
            axes.set_title(title, fontsize=9)
        grid[0].set_yticks(range(len(rows)), [row["run"] for row in rows])
        handles = [grid[0].plot([], [], mark, color=c, ms=5.5, label=words)[0] for c, mark, words in KINDS.values()]
        handles += [line for line in grid[0].get_lines() if line.get_label() in BASELINES.values()]
        figure.legend(handles=handles, loc="outside upper center", ncols=5)

    return d.draw(paint, (11.0, 0.95 + 0.27 * len(rows)))


def _panel(axes: Any, tree: Mapping[str, Any], path: str) -> None:
    """A figure of every run, in the colour of how that very figure stands beside the baselines'."""
    for kind, words in BASELINES.items():
        level = value(tree["baselines"]["figures"]["all"].get(kind, {}), path)
        if level is not None:
            axes.axvline(level, color=d.COLOURS[kind], lw=1.3, ls=(0, (4, 2) if kind == "threshold" else (1, 1.5)), label=words)
    for y, row in enumerate(tree["runs"]):
        found = at(row["figures"], path)
        if found is None or found["value"] is None:
            continue
        colour, mark, _ = KINDS[beside(row, path)]
        low, high = found["ci95"] or (found["value"], found["value"])
        axes.plot([low, high], [y, y], color=colour, lw=2.2, alpha=0.45, solid_capstyle="round")
        axes.plot(found["value"], y, mark, ms=5.5, color=colour, clip_on=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(tree["runs"]) - 0.45, -0.55))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def block(
    tree: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """Some runs beside one another: heads with their colour scales, and a row of tiles per case.

    given: input and annotation of each case. pictures: run -> what it made of each case that it was shown.
    """
    rows = {row["run"]: row for row in tree["runs"]}
    heads = []
    for name in pictures:
        top = float(rows[name]["thresholds"]["scale"]["value"] or 0.25)
        threshold = rows[name]["thresholds"]["pixel"]["value"]
        heads.append({"run": name, "localises": rows[name]["localises"], "top": top, "threshold": threshold})
    cases = []
    for case in tree["cases"]:
        seen = given[case["key"]]
        image, truth = grey_tile(seen["input"], SIDES), seen["truth"]
        cases.append(
            {
                **case,
                "lesion_pixels": seen["lesion_pixels"],
                "input": png(image),
                "truth": None if truth is None else png(outlined(image, truth, TRUTH)),
                "answers": [_answer(pictures[h["run"]].get(case["key"]), h["top"], h["run"], case["key"]) for h in heads],
            }
        )
    return {"heads": heads, "cases": cases}


def _answer(shown: Mapping[str, Any] | None, top: float, name: str, key: str) -> dict[str, Any]:
    """One cell: a map in the run's own scale with the outline of what its threshold marks, and the healed image."""
    if shown is None:
        return {"absent": "not shown: the method takes diseased images only", "tiles": []}
    tiles = []
    if shown["map"] is not None:
        picture = outlined(map_tile(shown["map"], top, SIDES), shown["mask"], CONTOUR)
        tiles.append({"src": png(picture), "alt": f"anomaly map of {key} by {name}"})
    if shown["healed"] is not None:
        tiles.append({"src": png(grey_tile(shown["healed"], SIDES)), "alt": f"{key} healed by {name}"})
    absent = "" if shown["map"] is not None else "no map"
    return {"absent": absent, "score": shown["score"], "dice": shown["dice"], "tiles": tiles}


def bar() -> Picture:
    """The colours of every map from 0, left, to the run's own top."""
    return np.repeat(np.rint(255 * palette()).astype(np.uint8)[None], 12, axis=0)


def _pictures(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each shown image, by its key: arrays and figures."""
    rows = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    with np.load(folder / "pictures.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    parts = ("input", "healed", "map", "truth", "mask")
    return {row["key"]: {**row, **{part: arrays.get(f"{row['number']}/{part}") for part in parts}} for row in rows}
