"""``write_compared``: a comparison as ``table.csv``, ``table.md`` and one self-contained page, ``compare.html``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..detection.overlay import CONTOUR, Picture, drawn_size, enlarge, outline, palette
from ..errors import UsageError
from ..io.atomic import safe_cell, write_bytes, write_text
from . import drawings as d
from .page import at, interval, number, png, write_page
from .pictures import TRUTH
from .verdict import Kind, clear, kind_of, margins, verdicts

FIGURES = {
    "image.auroc": "image AUROC", "image.ap": "image AP", "pixel.ap": "pixel AP", "pixel.dice": "Dice",
    "pixel.dice_best": "best Dice",
}  # fmt: skip
COLUMNS = ("run", "method", "needs", "steps", "training time", "peak memory", *FIGURES.values(), "beside the baselines")
BASELINES = {kind: d.NAMES[kind] for kind in ("threshold", "thumbnail")}
ABREAST = 5  # runs beside one another on the page, so that a sheet of paper holds them
SMALLEST, LARGEST = 128, 192  # side lengths of the page's tiles
DASH, MINUS = "–", "\N{MINUS SIGN}"


def write_compared(out: Path | str) -> Path:
    """Makes table and page from what ``compare_runs`` left in ``out``; returns the page's path.

    Raises:
        UsageError: the folder holds no complete comparison.
    """
    out = Path(out)
    try:
        tree = json.loads((out / "compare.json").read_text(encoding="utf-8"))
        pictures = {row["run"]: _pictures(out / row["pictures"]) for row in tree["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
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
        differences=[_difference_cells(row) for row in tree["runs"] if row.get("difference")],
        blocks=[block(tree, pictures, names) for names in blocks],
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
    beside = margins(row)
    leads: list[tuple[Kind, str]] = [("worse", "loses to"), ("unclear", "not clearly better than")]
    for kind, lead in leads:
        found: dict[str, list[str]] = {}
        for baseline, path, margin in beside:
            if kind_of(margin) == kind:
                text = f"{FIGURES[path]} {margin['value']:+.3f}".replace("-", MINUS)
                open_loss = kind == "worse" and not clear(margin)
                found.setdefault(BASELINES[baseline], []).append(f"{text} (not clearly)" if open_loss else text)
        if found:
            return kind, f"{lead} " + "; ".join(f"{words}: {', '.join(texts)}" for words, texts in found.items())
    return ("better", "better than the baselines") if beside else ("unclear", "nothing to compare with the baselines")


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
    value = (figure or {}).get("value")
    ends = interval(figure)
    return DASH if value is None else f"{number(value)} ({ends})" if ends else number(value)


def baselines(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Images and baseline of every row: on the diseased images alone thumbnails, which give no map, have no figure."""
    figures = tree["baselines"]["figures"]
    return [
        (shown, kind)
        for shown, kinds in figures.items()
        for kind, found in kinds.items()
        if shown == "all" or any((at(found, path) or {}).get("value") is not None for path in FIGURES)
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
    for name in names:
        head += [name, f"{name}_low", f"{name}_high"]
    head += ["standing", "beside_baselines"]
    for name in names:
        head += [f"{name}_minus_reference", f"{name}_minus_reference_low", f"{name}_minus_reference_high"]
    head.append("error")
    rows: list[dict[str, Any]] = []
    for row in tree["runs"]:
        kind, words = standing(row)
        cells = {key: row[key] for key in ("run", "method", "recipe", "needs")} | {"standing": kind, "beside_baselines": words}
        cells |= {key: row["evaluated"][key] for key in ("images", "patients")}
        cells |= {key: row["training"][key] for key in ("steps", "seconds", "peak_mb")}
        for path, name in zip(FIGURES, names, strict=True):
            cells |= _three(name, at(row["figures"], path))
            cells |= _three(f"{name}_minus_reference", at(row, f"difference.{path}"))
        rows.append(cells)
    for shown, which in baselines(tree):
        cells = {"run": name_of_baseline(shown, which), "needs": _trivial_needs(which)}
        for path, name in zip(FIGURES, names, strict=True):
            cells |= _three(name, at(tree["baselines"]["figures"][shown][which], path))
        rows.append(cells)
    rows += [{"run": bad["run"], "error": bad["error"]} for bad in tree["failed"]]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    for cells in rows:
        writer.writerow([_csv_cell(cells.get(column)) for column in head])
    return text.getvalue()


def _three(name: str, figure: Mapping[str, Any] | None) -> dict[str, Any]:
    low, high = (figure or {}).get("ci95") or (None, None)
    return {name: (figure or {}).get("value"), f"{name}_low": low, f"{name}_high": high}


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else safe_cell(str(value))


def table_md(tree: Mapping[str, Any]) -> str:
    """The table for a document: value (95 % interval), losing runs marked; then what failed and what to take note of."""
    data, seen = tree["data"], tree["evaluated"]
    lines = [
        f"{data['name']}, {data['split']} split: {seen['images']} images of {seen['patients']} patients. 95 % intervals over "
        "patients; Dice at the threshold found on validation data, best Dice at the threshold that suits these labels best.",
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
    """Text that no Markdown reader takes for a column or a tag."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


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
    rows = list(tree["runs"])
    panels = {path: title for path, title in FIGURES.items() if any((at(r["figures"], path) or {}).get("value") for r in rows)}
    if not panels:
        return None
    colours = {"better": "#14589c", "unclear": "#9a6200", "worse": "#a4283f"}
    marks = {"better": "o", "unclear": "D", "worse": "X"}

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (path, title) in zip(grid, panels.items(), strict=True):
            for kind, words in BASELINES.items():
                value = (at(tree["baselines"]["figures"]["all"].get(kind, {}), path) or {}).get("value")
                if value is not None:
                    colour, dash = d.COLOURS[kind], (0, (4, 2)) if kind == "threshold" else (0, (1, 1.5))
                    axes.axvline(value, color=colour, lw=1.3, ls=dash, label=words)
            for y, row in enumerate(rows):
                found = at(row["figures"], path)
                if found is None or found["value"] is None:
                    continue
                kind = standing(row)[0]
                low, high = found["ci95"] or (found["value"], found["value"])
                axes.plot([low, high], [y, y], color=colours[kind], lw=2.2, alpha=0.45, solid_capstyle="round")
                axes.plot(found["value"], y, marks[kind], ms=5.5, color=colours[kind])
            axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.45, -0.55))
            axes.set_title(title, fontsize=9)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        grid[0].set_yticks(range(len(rows)), [row["run"] for row in rows])
        handles = [axes.plot([], [], marks[k], color=c, ms=5.5, label=t)[0] for (k, c), t in zip(
            colours.items(), ("better than the baselines", "not clearly better", "loses"), strict=True)]  # fmt: skip
        handles += grid[0].get_legend_handles_labels()[0]
        figure.legend(handles=handles, loc="outside upper center", ncols=5)

    return d.draw(paint, (11.0, 0.95 + 0.27 * len(rows)))


def block(
    tree: Mapping[str, Any], pictures: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str]
) -> dict[str, Any]:
    """Some runs beside one another: heads with their colour scales, and a row of tiles per case."""
    rows = {row["run"]: row for row in tree["runs"]}
    heads = []
    for name in names:
        top = float(rows[name]["thresholds"]["scale"]["value"] or 0.25)
        threshold = rows[name]["thresholds"]["pixel"]["value"]
        heads.append({"run": name, "localises": rows[name]["localises"], "top": top, "threshold": threshold})
    cases = []
    for case in tree["cases"]:
        some = next(shown[case["key"]] for shown in pictures.values() if case["key"] in shown)
        answers = [_answer(pictures[h["run"]].get(case["key"]), h["top"], h["run"], case["key"]) for h in heads]
        truth = some.get("truth")
        cases.append(
            {
                **case,
                "lesion_pixels": some["lesion_pixels"],
                "input": png(_grey(some["input"])),
                "truth": None if truth is None else png(outline(_grey(some["input"]), _drawn(truth), TRUTH)),
                "answers": answers,
            }
        )
    return {"heads": heads, "cases": cases}


def _answer(shown: Mapping[str, Any] | None, top: float, name: str, key: str) -> dict[str, Any]:
    """One cell: a map in the run's own scale with the outline of what its threshold marks, and the healed image."""
    if shown is None:
        return {"absent": "not shown: the method takes diseased images only", "tiles": []}
    tiles = []
    if shown.get("map") is not None:
        picture = _map(shown["map"], top)
        if shown.get("mask") is not None:
            picture = outline(picture, _drawn(shown["mask"]), CONTOUR)
        tiles.append({"src": png(picture), "alt": f"anomaly map of {key} by {name}"})
    if shown.get("healed") is not None:
        tiles.append({"src": png(_grey(shown["healed"])), "alt": f"{key} healed by {name}"})
    absent = "" if shown.get("map") is not None else "no map"
    return {"absent": absent, "score": shown["score"], "dice": shown["dice"], "tiles": tiles}


def _drawn(values: NDArray[Any]) -> NDArray[Any]:
    values = values if values.dtype == bool else values.astype(np.float32)
    return enlarge(values, drawn_size(values.shape[0], values.shape[1], SMALLEST, LARGEST))


def _grey(values: NDArray[Any]) -> Picture:
    return np.repeat(np.rint(255 * np.clip(_drawn(values), 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def _map(values: NDArray[Any], top: float) -> Picture:
    return np.rint(255 * palette()[np.rint(255 * np.clip(_drawn(values) / top, 0, 1)).astype(np.intp)]).astype(np.uint8)


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
