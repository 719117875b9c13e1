"""Curves and histograms, drawn once in one style."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .page import Evaluation, at

METHOD, INTENSITY, THUMBNAIL = "#14589c", "#c8780e", "#7d7f87"
HEALTHY, DISEASED = "#5b9aa0", "#b5485d"
SERIES = ("#14589c", "#2f8f5b", "#8a4fa3", "#b5485d", "#5b7083", "#a07c2c")  # several runs side by side
NAMES = {"method": "this method", "threshold": "brightness", "thumbnail": "thumbnails"}
COLOURS = {"method": METHOD, "threshold": INTENSITY, "thumbnail": THUMBNAIL}
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#8894a0", "axes.labelcolor": "#3a4754", "text.color": "#22303c",
    "xtick.color": "#5a6672", "ytick.color": "#5a6672", "axes.grid": True, "grid.color": "#e6eaee", "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 8.5, "figure.facecolor": "white", "savefig.facecolor": "white",
    "text.parse_math": False,  # a name may hold $
}  # fmt: skip


def draw(paint: Callable[[Any], None], size: tuple[float, float]) -> str:
    """A matplotlib figure as a data address; ``paint`` gets it empty."""
    import base64

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=170, layout="constrained")
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def roc_curves(named: Mapping[str, tuple[Mapping[str, Any], str]], size: tuple[float, float] = (3.6, 3.5)) -> str:
    """named: label -> (points, colour)."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot(title="ROC, image level", xlabel="false positive rate", ylabel="sensitivity")
        axes.plot([0, 1], [0, 1], color="#c3cad1", lw=1, ls=(0, (4, 3)))
        for label, (points, colour) in named.items():
            fpr, tpr = np.array(points["fpr"], float), np.array(points["tpr"], float)
            if np.isfinite(fpr).all() and np.isfinite(tpr).all():
                axes.step(fpr, tpr, where="post", color=colour, lw=1.8, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.legend(loc="lower right")

    return draw(paint, size)


def froc_curves(named: Mapping[str, tuple[Mapping[str, Any], str]], size: tuple[float, float] = (3.6, 3.5)) -> str | None:
    """None where no lesion is annotated."""
    usable = {k: v for k, v in named.items() if v[0]["sensitivity"] and None not in v[0]["sensitivity"]}
    if not usable:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot(title="FROC, lesion level", xlabel="false positives per image", ylabel="lesions found")
        axes.axvline(1, color="#c3cad1", lw=1, ls=(0, (4, 3)))
        for label, (points, colour) in usable.items():
            false, found = np.array(points["false_positives"], float), np.array(points["sensitivity"], float)
            allowed = np.logical_and.accumulate(false <= 3)
            best = np.maximum.accumulate(np.where(allowed, found, 0))
            order = np.argsort(false[allowed], kind="stable")
            x, y = false[allowed][order], np.maximum.accumulate(best[allowed][order])
            axes.step(np.r_[0, x], np.r_[0, y], where="post", color=colour, lw=1.8, label=label)
        axes.set(xlim=(-0.02, 2), ylim=(-0.01, 1.01))
        axes.legend(loc="lower right")

    return draw(paint, size)


def score_histogram(evaluation: Evaluation, size: tuple[float, float] = (3.6, 3.5), *, title: str = "Scores") -> str:
    scores = {
        label: np.array([float(r["score"]) for r in evaluation.scores if r["label"] == label])
        for label in ("healthy", "diseased")
    }
    threshold = evaluation.protocol["thresholds"]["image"]["value"]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot(title=title, xlabel="score (higher = more diseased)", ylabel="images")
        both = np.concatenate(list(scores.values()))
        bins = np.histogram_bin_edges(both, bins=min(50, max(10, len(both) // 4)))
        for label, colour in (("healthy", HEALTHY), ("diseased", DISEASED)):
            if len(scores[label]):
                axes.hist(scores[label], bins=bins, color=colour, alpha=0.6, label=f"{label} ({len(scores[label])})")
        if threshold is not None:
            axes.axvline(threshold, color="#22303c", lw=1.2, ls=(0, (4, 2)), label="threshold (validation)")
        axes.legend(loc="upper right")
        axes.ticklabel_format(axis="x", style="plain" if both.max() >= 0.01 else "sci", scilimits=(-3, 3))

    return draw(paint, size)


def forest(rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any] | None]]], colours: Mapping[str, str]) -> str:
    """Figures with their intervals, one line each, the detectors side by side. rows: (title, detector -> figure)."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        names = list(colours)
        for y, (_, found) in enumerate(rows):
            for k, name in enumerate(names):
                value = found.get(name)
                if value is None or value.get("value") is None:
                    continue
                at_y = y + 0.22 * (k - (len(names) - 1) / 2)
                low, high = value.get("ci95") or (value["value"], value["value"])
                axes.plot([low, high], [at_y, at_y], color=colours[name], lw=2.2, alpha=0.45, solid_capstyle="round")
                axes.plot(value["value"], at_y, "o", ms=5.5, color=colours[name], label=name if y == 0 else None)
        axes.set(xlim=(-0.01, 1.01), ylim=(len(rows) - 0.45, -0.55))
        axes.set_yticks(range(len(rows)), [title for title, _ in rows])
        axes.tick_params(axis="y", length=0, labelsize=9.5, labelcolor="#22303c")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        handles = [axes.plot([], [], "o-", color=c, lw=2.2, ms=5.5, label=n)[0] for n, c in colours.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)

    return draw(paint, (7.8, 0.62 + 0.46 * len(rows)))


def training_curves(log: Sequence[Mapping[str, str]], limit: int = 12) -> str | None:
    """One small panel per column of the log that holds numbers; None when there is none."""
    columns = [c for c in (log[0] if log else {}) if c not in ("phase", "step", "lr")]
    series = {c: [(float(r["step"]), float(r[c])) for r in log if r.get(c) not in ("", None)] for c in columns}
    # Validation figures first: they are what one looks for.
    names = sorted((c for c in columns if len(series[c]) > 1), key=lambda c: not c.startswith("val"))[:limit]
    if not names:
        return None

    def paint(figure: Any) -> None:
        grid = figure.subplots(-(-len(names) // 4), 4, squeeze=False, sharex=True)
        for axes, name in zip(grid.flat, names, strict=False):
            x, y = np.array(series[name]).T
            axes.plot(x, y, color=METHOD if name.startswith("val") else "#5b7083", lw=1.3, marker="." if len(x) < 30 else "")
            axes.set_title(name, fontsize=8.5)
            axes.tick_params(labelsize=7.5)
            axes.ticklabel_format(axis="x", style="plain")
        for axes in list(grid.flat)[len(names) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("step", fontsize=8)

    return draw(paint, (10.2, 1.75 * -(-len(names) // 4)))


def colour_scales(top: float, pixel: float | None, *, signed: bool = True, mapped: bool = True) -> str | None:
    """The colour bars of the picture rows, in map units: of signed differences and of maps. None where neither is shown."""
    if not signed and not mapped:
        return None
    from matplotlib.colors import ListedColormap, Normalize

    from ..detection.overlay import palette

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, signed + mapped, squeeze=False)[0]
        bars: list[tuple[Any, Any, float, str]] = []
        if signed:
            bars.append((grid[0], diverging(), -top, "difference: image minus healed (red: image brighter)"))
        if mapped:
            bars.append((grid[-1], ListedColormap(palette()), 0.0, "map"))
        for axes, colours, low, title in bars:
            bar = figure.colorbar(_mappable(Normalize(low, top), colours), cax=axes, orientation="horizontal")
            bar.outline.set_visible(False)
            axes.set_title(title, fontsize=8.5, fontweight="normal")
            axes.tick_params(labelsize=8)
            if low == 0 and pixel is not None and pixel < top:
                axes.axvline(pixel, color="#40e0ff", lw=1.6)
                axes.set_title(f"map (line: pixel threshold {pixel:.3g})", fontsize=8.5, fontweight="normal")

    return draw(paint, (3.8 * (signed + mapped), 0.62))


def diverging() -> Any:
    from matplotlib import colormaps

    return colormaps["RdBu_r"]


def _mappable(norm: Any, colours: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, colours)


def forest_rows(
    evaluations: Mapping[str, Mapping[str, Any]], figures: Mapping[str, str]
) -> list[tuple[str, Mapping[str, Mapping[str, Any] | None]]]:
    """figures: dotted path -> title. evaluations: detector -> metrics tree."""
    rows: list[tuple[str, Mapping[str, Mapping[str, Any] | None]]] = []
    for path, title in figures.items():
        found = {name: at(tree, path) for name, tree in evaluations.items()}
        if any(f is not None and f.get("value") is not None for f in found.values()):
            rows.append((title, found))
    return rows
