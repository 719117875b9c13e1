"""What an evaluation leaves behind: figures, the table of scores, the protocol, and the report's material."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_plain
from ..data.dataset import Dataset, manifest
from ..detection.predictor import Predictor
from ..io.atomic import replacing, safe_cell, write_bytes, write_json
from ..metrics import curves
from ..metrics.bins import exact_bins
from ..types import DISEASED, HEALTHY
from .baselines import ThumbnailBaseline
from .cases import choose, save_pictures
from .collect import Collector, Detectors

COLUMNS = (
    "path", "patient", "slice", "label", "score", "threshold", "call", "dice", "lesion_pixels", "change",
    "baseline_threshold", "baseline_thumbnail",
)  # fmt: skip
TRAINING = ("begun", "finished", "seed", "precision", "threads", "machine", "git")  # of the run's manifest


def protocol(
    run: Path,
    predictor: Predictor,
    sets: Mapping[str, Dataset],
    split: str,
    detectors: Detectors,
    *,
    bootstrap: int,
    seed: int,
    notes: list[str],
) -> dict[str, Any]:
    """What a reader needs to judge the figures: data, thresholds, rules, weights, versions, and notes on all unusual."""
    from ..training.manifest import versions

    trained, card = read_json(run / "manifest.json"), predictor.card
    patients = {s.patient for s in detectors.method.seen}
    about: dict[str, Any] = {
        "run": run.resolve().name,
        "method": card.get("method"),
        "title": type(predictor.method).title,
        "needs": type(predictor.method).needs.value,
        "recipe": card.get("recipe", ""),
        "weights": {
            "name": predictor.thresholds.weights,
            "sha256": predictor.weights_sha256,
            "step": card.get("step"),
            "chosen": card.get("chosen", ""),
        },
        "data": {**manifest(sets[split]), "name": data_name(sets[split])},
        "evaluated": {
            "images": len(detectors.method.seen),
            "labelled": len(detectors.method.labelled()),
            "patients": len(patients),
            "annotated": detectors.method.annotated,
        },
        "thresholds": to_plain(replace(predictor.thresholds, sweep=())),
        "bootstrap": {"resamples": bootstrap, "of": "patients", "patients": len(patients), "level": 0.95, "seed": seed},
        "rules": {
            "lesion found": "the centroid of a candidate, an 8-connected part of the thresholded map, lies inside it",
            "pixels": "at the images' own size, over healthy images and annotated diseased ones",
            "min_area": predictor.detection.min_area,
        },
        "settings": {"method": to_plain(predictor.method.config), "data": to_plain(predictor.data)},
        "training": {name: trained[name] for name in TRAINING if name in trained},
        "notes": [*dict.fromkeys([*trained.get("notes", []), *notes])],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    if detectors.intensity_baseline is not None:
        thumbnails = detectors.thumbnails
        about["baselines"] = {
            "threshold": detectors.intensity_baseline.about(),
            "thumbnail": thumbnails.about() if isinstance(thumbnails, ThumbnailBaseline) else {"model": str(thumbnails)},
        }
    return about


def write_evaluation(
    run: Path, out: Path, predictor: Predictor, test: Dataset, detectors: Detectors, tree: Mapping[str, Any]
) -> None:
    """``metrics.json`` last, so that a folder with figures is complete."""
    seen, material = detectors.method.seen, out / "report"
    write_json(material / "curves.json", _curves(detectors))
    save_pictures(choose(seen), seen, test, predictor, material)
    if (run / "log.csv").is_file():
        write_bytes(material / "log.csv", (run / "log.csv").read_bytes())
    _write_scores(out / "scores.csv", detectors, predictor.thresholds.image.value)
    write_json(out / "metrics.json", tree)


def _write_scores(path: Path, detectors: Detectors, threshold: float | None) -> None:
    seen = detectors.method.seen
    intensity = detectors.intensity.seen if detectors.intensity is not None else [None] * len(seen)
    thumbs: list[float | None] = list(detectors.thumbnail_scores) or [None] * len(seen)
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for s, other, thumb in zip(seen, intensity, thumbs, strict=True):
            call = "" if threshold is None else "diseased" if s.score >= threshold else "healthy"
            cells = [safe_cell(s.path), safe_cell(s.patient), "" if s.slice is None else str(s.slice), s.label]
            cells += [_cell(s.score), _cell(threshold), call, _cell(s.dice), _cell(s.lesion_pixels), _cell(s.change)]
            writer.writerow([*cells, _cell(other.score if other else None), _cell(thumb)])


def _curves(detectors: Detectors) -> dict[str, Any]:
    """ROC and FROC points for the report's drawings."""
    known = [i for i, s in enumerate(detectors.method.seen) if s.label in (HEALTHY, DISEASED)]
    labelled = detectors.method.labelled()
    truth, groups = [s.label == DISEASED for s in labelled], [s.patient for s in labelled]

    def roc(scores: list[float]) -> dict[str, list[float]]:
        bins = exact_bins(groups, scores, truth)
        curve = curves.roc(bins.values, *bins.pooled())
        return {"fpr": curve.fpr.tolist(), "tpr": curve.tpr.tolist()}

    def froc(collector: Collector) -> dict[str, list[float]]:
        sensitivity, false = collector.froc.curve() if collector.froc.rows else (np.zeros((1, 0)), np.zeros((1, 0)))
        return {"sensitivity": sensitivity[0].tolist(), "false_positives": false[0].tolist()}

    found: dict[str, Any] = {"roc": {"method": roc([s.score for s in labelled])}, "froc": {"method": froc(detectors.method)}}
    if detectors.intensity is not None:
        found["roc"]["threshold"] = roc([s.score for s in detectors.intensity.labelled()])
        found["froc"]["threshold"] = froc(detectors.intensity)
    if detectors.thumbnail_scores:
        found["roc"]["thumbnail"] = roc([detectors.thumbnail_scores[i] for i in known])
    return found


def data_name(dataset: Dataset) -> str:
    """The table's folder: every table is called labels.csv."""
    return dataset.table.root.resolve().name or dataset.table.name


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
