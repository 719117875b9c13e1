"""``evaluate_run``: a run over one split of labelled images, with everything that the report needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.dataset import Dataset, open_dataset
from ..data.leaks import refuse_leaks
from ..data.table import Table, read_table
from ..detection.apply import apply_dataset, native_map
from ..detection.calibrate import save_calibration
from ..detection.predictor import Predictor
from ..errors import UsageError
from ..metrics.bootstrap import Figure
from ..types import DISEASED
from . import figures as f
from .baselines import ThumbnailBaseline, brightness, fit_intensity, fit_thumbnails
from .collect import Collector, Detectors, Seen
from .record import protocol, write_evaluation
from .twins import against_twin, stretched_distance, twin_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int, str], None]
SEED = 0


def evaluate_run(
    run: Path | str,
    data: Path | str | Table,
    split: str,
    out: Path | str,
    *,
    weights: str = "best",
    device: str = "auto",
    baselines: bool = True,
    bootstrap: int = 500,
    assume_diseased: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of a run on the labelled images of ``split``; writes ``metrics.json``, ``scores.csv`` and the report's material.

    Thresholds come from the run's validation data; a run that was never calibrated is calibrated on the ``val`` split of the
    table, if it has one. Masks count at native size. Intervals: 95 %, percentiles of ``bootstrap`` resamples of patients.
    A method that takes images known to be diseased only is shown the diseased images, unless ``assume_diseased`` shows it all,
    which its authors do not foresee. on_progress: called with (done, in all, what).

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError: no such split, no labelled image, or images shared with the train split (unless the run allowed leaks).
    """
    run, out = Path(run), Path(out)
    predictor = Predictor.load(run, weights, device)
    table = data if isinstance(data, Table) else read_table(data)
    sets, notes = _open(table, split, predictor)
    if type(predictor.method).class_at_inference:
        if assume_diseased:
            notes.append("outside the method's contract: it takes diseased images only, and was shown healthy ones as well")
        else:
            sets[split] = _diseased_only(sets[split])
            notes.append("the method takes images known to be diseased only: the healthy ones were not shown to it")
    test = sets[split]
    if predictor.thresholds.image.value is None and predictor.thresholds.pixel.value is None and "val" in sets:
        predictor.thresholds = save_calibration(predictor, sets["val"], run, weights)
    if split == "val":
        notes.append("evaluated on the split that the thresholds were found on: figures at these thresholds are flattered")
    detectors = _detectors(predictor, sets, split, baselines)
    _collect(predictor, test, detectors, on_progress)
    tree = _figures(predictor, detectors, bootstrap)
    tree["protocol"] = protocol(run, predictor, sets, split, detectors, bootstrap=bootstrap, seed=SEED, notes=notes)
    write_evaluation(run, out, predictor, test, detectors, tree)
    return tree


def _open(table: Table, split: str, predictor: Predictor) -> tuple[dict[str, Dataset], list[str]]:
    """The evaluated split, and train and val where the table has them."""
    config, have = predictor.data, {row.split for row in table.rows}
    sets: dict[str, Dataset] = {}
    for name in (split, "train", "val"):
        if name not in sets and (name == split or name in have):
            sets[name] = open_dataset(table, name, config, predictor.preprocessing, domains=predictor.method.spec.domains)
    notes = refuse_leaks(sets, allow=config.allow_leak) if len(sets) > 1 else []
    if "train" not in sets:
        notes.append("these data hold no train split: whether the method saw some of them in training could not be checked")
    trained_on = predictor.card.get("train_fingerprint")
    if trained_on and sets[split].fingerprint == trained_on:
        notes.append("evaluated on the very images that the method was trained on")
    elif trained_on and "train" in sets and sets["train"].fingerprint != trained_on:
        notes.append("the method was trained on other images than the train split of these data, which trained the baselines")
    if not any(item.label in ("healthy", DISEASED) for item in sets[split].items):
        raise UsageError("no image of this split is labelled healthy or diseased", where=split, hint="evaluation needs labels")
    return sets, notes


def _diseased_only(dataset: Dataset) -> Dataset:
    chosen = [i for i, item in enumerate(dataset.items) if item.label == DISEASED]
    if not chosen:
        raise UsageError("no image is labelled diseased, and the method takes no other", where=dataset.split or "")
    return dataset.subset(chosen)


def _detectors(predictor: Predictor, sets: Mapping[str, Dataset], split: str, baselines: bool) -> Detectors:
    thresholds, least = predictor.thresholds, predictor.detection.min_area
    method = Collector(thresholds.pixel.value, np.array(thresholds.sweep), least)
    if not baselines:
        return Detectors(method)
    train = sets.get("train") if split != "train" else None
    intensity = fit_intensity(train, sets.get("val"), predictor.preprocessing)
    collector = Collector(intensity.pixel_threshold, np.array(intensity.sweep), least)
    return Detectors(method, collector, intensity, fit_thumbnails(train))


def _collect(predictor: Predictor, test: Dataset, detectors: Detectors, on_progress: Progress | None) -> None:
    answers = apply_dataset(predictor.method, test, predictor.device, batch_size=predictor.batch_size)
    for index, image, answer in answers:
        item, native = test.items[index], test.native(index)
        shape = native.plane.shape[:2]
        change = None if answer.healed is None else float(np.abs(image - answer.healed).mean() / 2)
        mse = None if answer.healed is None else stretched_distance(image, answer.healed)
        seen = Seen(item.key, item.row.path, item.patient_id, item.slice, item.label, answer.score, change, mse)
        anomaly_map = None if answer.anomaly_map is None else native_map(answer.anomaly_map, shape, predictor.preprocessing)
        detectors.method.add(seen, anomaly_map, native.mask)
        if detectors.intensity is not None and detectors.intensity_baseline is not None:
            bright: NDArray[np.float32] = native_map(brightness(image), shape, predictor.preprocessing)
            other = replace(seen, score=detectors.intensity_baseline.score(image), change=None, mse=None)
            detectors.intensity.add(other, bright, native.mask)
        twin = None if answer.healed is None or item.label != DISEASED else against_twin(test, index, image, answer.healed)
        if twin is not None:
            detectors.twins.append(twin)
        if isinstance(detectors.thumbnails, ThumbnailBaseline):
            detectors.thumbnail_scores.append(detectors.thumbnails.score(image))
        if on_progress is not None:
            on_progress(index + 1, len(test), "images evaluated")


def _figures(predictor: Predictor, detectors: Detectors, bootstrap: int) -> dict[str, Any]:
    seen = detectors.method.seen
    draw = f.Resampler([s.patient for s in seen], bootstrap, SEED)
    localises = type(predictor.method).localises
    method: f.Tree = {
        "image": f.image_figures(detectors.method, draw, predictor.thresholds.image.value),
        "patient": f.patient_figures(detectors.method, draw),
        "pixel": f.pixel_figures(detectors.method, draw, localises=localises),
        "lesion": f.lesion_figures(detectors.method, draw, localises=localises),
        "healthy": f.healthy_figures(detectors.method, draw, heals=type(predictor.method).heals),
    }
    if detectors.twins:
        method["twin"] = twin_figures(detectors.twins, draw)
    base: f.Tree = {}
    if detectors.intensity is not None:
        base["threshold"] = {
            "image": f.image_figures(detectors.intensity, draw, called=False),
            "pixel": f.pixel_figures(detectors.intensity, draw),
            "lesion": f.lesion_figures(detectors.intensity, draw),
        }
        base["thumbnail"] = {"image": _thumbnail_figures(detectors, draw)}
    tree = f.plain(method)
    if base:
        tree["baseline"] = f.plain(base)
        tree["margin"] = f.plain({name: f.margins(method, other) for name, other in base.items()})
    tree["paper"] = f.plain(f.paper_figures(detectors.method, draw))
    return tree


def _thumbnail_figures(detectors: Detectors, draw: f.Resampler) -> f.Tree:
    seen, scores = detectors.method.seen, detectors.thumbnail_scores
    if not isinstance(detectors.thumbnails, ThumbnailBaseline):
        none = Figure(None, None, 0, str(detectors.thumbnails))
        return {"auroc": none, "ap": none}
    collector = Collector(None, None, 0)
    collector.seen = [replace(s, score=score) for s, score in zip(seen, scores, strict=True)]
    return f.image_figures(collector, draw, called=False)
