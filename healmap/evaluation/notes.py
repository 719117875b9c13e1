"""What a reader of a comparison must know about its runs, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

FEW = 5  # runs whose names are given, where most others have something else in common


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs do not have in common and a reader must know, one sentence each."""
    size = "every figure is taken at the images' own size"
    cost = "compare times and memory with care"
    aspects: list[tuple[str, Callable[[Mapping[str, Any]], Any], str]] = [
        (
            "images shown",
            lambda r: "all" if r["shown"] == "all" else "diseased only",
            "their figures do not compare",
        ),
        ("working size", lambda r: f"{r['settings']['data']['size']} px", size),
        ("channels", lambda r: r["settings"]["data"]["channels"], ""),
        ("fit to a square", lambda r: r["settings"]["data"]["fit"], size),
        ("intensity scheme", lambda r: _intensities(r["settings"]["data"]), "each run sees the images as it was trained to"),
        ("domains", lambda r: ", ".join(r["domains"]), ""),
        ("smallest finding", lambda r: r.get("min_area"), ""),
        ("pixel threshold", lambda r: r["thresholds"]["pixel"]["how"] if r["localises"] else None, ""),
        ("processor", lambda r: r["training"]["processor"], cost),
        ("device", lambda r: r["training"]["device"], cost),
        ("threads", lambda r: r["training"]["threads"], cost),
        ("precision", lambda r: r["training"]["precision"], cost),
    ]
    notes = []
    for title, of, why in aspects:
        groups: dict[Any, list[str]] = {}
        for row in rows:
            if of(row) is not None:
                groups.setdefault(of(row), []).append(row["run"])
        if len(groups) > 1:
            most = max(groups, key=lambda value: len(groups[value]))
            listed = "; ".join(
                f"{value}: {f'the other {len(names)}' if value == most and len(names) > FEW else ', '.join(names)}"
                for value, names in groups.items()
            )
            notes.append(f"{title} differs ({listed})" + (f": {why}" if why else ""))
    return notes


def _intensities(data: Mapping[str, Any]) -> str:
    """Normalisation with the setting that it goes by."""
    own = {"window": "window", "percentile": "percentiles", "foreground-median": "median_scale", "zscore": "zscore_range"}
    name = data["normalisation"]
    value = data.get(own.get(name, ""))
    return name if value is None else f"{name} {' to '.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def together(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each note once, with the runs that it is about; of all runs: without names."""
    about: dict[str, list[str]] = {}
    for name, own in notes.items():
        for note in dict.fromkeys(own):
            about.setdefault(note, []).append(name)
    return [note if len(names) == len(notes) else f"{', '.join(names)}: {note}" for note, names in about.items()]
