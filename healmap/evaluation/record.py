"""What an evaluation leaves behind: figures, the table of scores, the protocol, and the report's material."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_plain
from ..data.dataset import Dataset, manifest
from ..data.table import Table
from ..detection.predictor import Predictor
from ..errors import HealError
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
NUMBER = int | float | None
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

    trained, evaluated = read_manifest(run) or {}, counts(detectors.method)
    about: dict[str, Any] = {
        "run": run.resolve().name,
        **run_facts(predictor),
        "data": {**manifest(sets[split]), "name": data_name(sets[split])},
        "evaluated": evaluated,
        "bootstrap": {**bootstrap_facts(bootstrap, seed), "patients": evaluated["patients"]},
        "rules": {
            "lesion found": "the centroid of a candidate, an 8-connected part of the thresholded map, lies inside it",
            "pixels": "at the images' own size, over healthy images and annotated diseased ones",
            "min_area": predictor.detection.min_area,
        },
        "training": {name: trained[name] for name in TRAINING if name in trained},
        "notes": [*dict.fromkeys([*trained.get("notes", []), *notes])],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    if detectors.intensity_baseline is not None:
        about["baselines"] = baseline_facts(detectors)
    return about


# ---- facts in plain data -----------------------------------------------------------------------------------------------


def run_facts(predictor: Predictor) -> dict[str, Any]:
    card, method = predictor.card, type(predictor.method)
    return {
        "method": card.get("method"),
        "title": method.title,
        "needs": method.needs.value,
        "recipe": card.get("recipe", ""),
        "weights": {
            "name": predictor.thresholds.weights,
            "sha256": predictor.weights_sha256,
            "step": card.get("step"),
            "chosen": card.get("chosen", ""),
        },
        "thresholds": to_plain(replace(predictor.thresholds, sweep=())),
        "settings": {"method": to_plain(predictor.method.config), "data": to_plain(predictor.data)},
    }


def training_facts(run: Path) -> dict[str, Any]:
    """Cost and conditions of the training, as far as the manifest tells them."""
    trained = read_manifest(run) or {}
    finished, machine = trained.get("finished", {}), trained.get("machine", {})
    return {
        **{key: finished.get(key) for key in ("steps", "seconds", "peak_mb")},
        "processor": machine.get("processor"),
        **{key: trained.get(key) for key in ("threads", "device", "precision", "seed", "git")},
    }


def training_notes(run: Path) -> list[str]:
    trained = read_manifest(run)
    if trained is None:
        return ["its manifest is missing or damaged: what its training cost is not known"]
    done = {"finished", "imported"} & set(trained)
    return [*trained.get("notes", []), *([] if done else ["its training was not finished"])]


def counts(collector: Collector) -> dict[str, int]:
    seen = collector.seen
    return {
        "images": len(seen),
        "labelled": len(collector.labelled()),
        "patients": len({s.patient for s in seen}),
        "annotated": collector.annotated,
    }


def bootstrap_facts(resamples: int, seed: int) -> dict[str, Any]:
    return {"resamples": resamples, "of": "patients", "level": 0.95, "seed": seed}


def baseline_facts(detectors: Detectors) -> dict[str, Any]:
    intensity, thumbnails = detectors.intensity_baseline, detectors.thumbnails
    assert intensity is not None
    return {
        "threshold": intensity.about(),
        "thumbnail": thumbnails.about() if isinstance(thumbnails, ThumbnailBaseline) else {"model": str(thumbnails)},
    }


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def reason(error: HealError, run: Path, table: Table) -> str:
    """The error without folders of this machine: pages travel."""
    where = "" if Path(error.where) == run else error.where  # the run is named beside it
    text = str(HealError(error.what, where=where, hint=error.hint))
    named = [(folder, folder.resolve().name) for folder in (run, run.parent, table.root)]
    for folder, name in [*named, (Path.home(), "~")]:
        for form in (folder, folder.absolute(), folder.resolve()):
            if len(form.parts) > 1:
                text = name.join(re.split(rf"{re.escape(str(form))}(?!\w)", text))
    return printable(text)


def printable(text: str) -> str:
    """Without characters that command a terminal or that no font shows."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---- files -------------------------------------------------------------------------------------------------------------


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
    return printable(dataset.table.root.resolve().name or dataset.table.name)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def read_manifest(run: Path) -> dict[str, Any] | None:
    """What training wrote about itself; None where that is missing, or what is read of it has another form."""
    found = read_json(run / "manifest.json")
    finished, machine, notes = found.get("finished", {}), found.get("machine", {}), found.get("notes", [])
    sound = (
        isinstance(finished, dict)
        and all(isinstance(finished.get(key), NUMBER) for key in ("steps", "seconds", "peak_mb"))
        and isinstance(machine, dict)
        and isinstance(machine.get("processor"), str | None)
        and isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
        and all(isinstance(found.get(key), str | int | None) for key in ("threads", "device", "precision", "seed", "git"))
    )
    return found if found and sound else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
