"""``evaluate_run``: a run over one split of labelled images, with everything that the report needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.dataset import Dataset, open_dataset
from ..data.leaks import refuse_leaks
from ..data.table import Table, read_table
from ..detection.apply import apply_dataset, native_map
from ..detection.calibrate import find_thresholds
from ..detection.predictor import Predictor
from ..detection.thresholds import save_thresholds
from ..errors import UsageError, WriteError
from ..metrics.bootstrap import Figure
from ..types import DISEASED
from . import figures as f
from .baselines import ThumbnailBaseline, brightness, fit_intensity, fit_thumbnails
from .collect import Collector, Detectors, Seen
from .record import protocol, write_evaluation
from .twins import against_twin, stretched_distance, twin_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data.dataset import Native
    from ..data.preprocess import Preprocessing

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
    notes: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of a run on the labelled images of ``split``; writes ``metrics.json``, ``scores.csv`` and the report's material.

    Thresholds come from the run's validation data; a run that was never calibrated is calibrated on the ``val`` split of the
    table, if it has one. Masks count at native size. Intervals: 95 %, percentiles of ``bootstrap`` resamples of patients.
    A method that takes images known to be diseased only is shown the diseased images, unless ``assume_diseased`` shows it all,
    which its authors do not foresee. notes: facts about the data, for the protocol. on_progress: called with (done, in all,
    what).

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError: no such split, no labelled image, or images shared with the train split (unless the run allowed leaks).
    """
    run, out = Path(run), Path(out)
    predictor = Predictor.load(run, weights, device)
    table = data if isinstance(data, Table) else read_table(data)
    sets, found = open_sets(table, split, predictor)
    sets[split], more = admitted(sets[split], predictor, assume_diseased=assume_diseased)
    test = sets[split]
    notes = [*notes, *found, *more, *ensure_thresholds(predictor, sets, run, weights)]
    detectors = Detectors(method_collector(predictor))
    if baselines:
        least = predictor.detection.min_area
        detectors = fit_baselines(sets, split, predictor.preprocessing, min_area=least, method=detectors.method)
    collect(predictor, test, detectors, on_progress)
    tree = _figures(predictor, detectors, bootstrap)
    tree["protocol"] = protocol(run, predictor, sets, split, detectors, bootstrap=bootstrap, seed=SEED, notes=notes)
    write_evaluation(run, out, predictor, test, detectors, tree)
    return tree


def open_sets(table: Table, split: str, predictor: Predictor) -> tuple[dict[str, Dataset], list[str]]:
    """The evaluated split, and train and val where the table has them; what a reader of the figures must know.

    Raises:
        UsageError: no such split, no labelled image in it, or splits that share patients or images.
    """
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
    if split == "val":
        notes.append("evaluated on the split that the thresholds were found on: figures at these thresholds are flattered")
    return sets, notes


def admitted(dataset: Dataset, predictor: Predictor, *, assume_diseased: bool) -> tuple[Dataset, list[str]]:
    """The images that the method may be shown: all, or the diseased ones if it takes no other; and a note about it.

    Raises:
        UsageError: the method takes diseased images only, and there are none.
    """
    if not type(predictor.method).class_at_inference:
        return dataset, []
    if assume_diseased:
        return dataset, ["outside the method's contract: it takes diseased images only, and was shown healthy ones as well"]
    chosen = [i for i, item in enumerate(dataset.items) if item.label == DISEASED]
    if not chosen:
        raise UsageError("no image is labelled diseased, and the method takes no other", where=dataset.split or "")
    return dataset.subset(chosen), ["the method takes images known to be diseased only: the healthy ones were not shown to it"]


def ensure_thresholds(predictor: Predictor, sets: Mapping[str, Dataset], run: Path, weights: str) -> list[str]:
    """Calibrates a run that never was, where there are validation images; and a note about it. A run folder that cannot be
    written stays as it is."""
    known = predictor.thresholds
    if known.image.value is not None or known.pixel.value is not None or "val" not in sets:
        return []
    predictor.thresholds = find_thresholds(predictor, sets["val"], weights)
    note = "it had no thresholds: they were found on the val split of these data"
    try:
        save_thresholds(predictor.thresholds, run)
    except WriteError:
        return [f"{note}; they could not be kept in its folder"]
    return [f"{note} and are kept in its folder"]


def method_collector(predictor: Predictor) -> Collector:
    thresholds = predictor.thresholds
    return Collector(thresholds.pixel.value, np.array(thresholds.sweep), predictor.detection.min_area)


def fit_baselines(
    sets: Mapping[str, Dataset], split: str, preprocessing: Preprocessing, *, min_area: int, method: Collector | None = None
) -> Detectors:
    """The trivial baselines, fitted on the train split and with their threshold from validation, ready to look at images.

    method: the detector that looks at the same images; None: the baselines are on their own.
    """
    train = sets.get("train") if split != "train" else None
    intensity = fit_intensity(train, sets.get("val"), preprocessing)
    collector = Collector(intensity.pixel_threshold, np.array(intensity.sweep), min_area)
    return Detectors(method or Collector(None, None, 0), collector, intensity, fit_thumbnails(train))


def collect_baselines(
    detectors: Detectors, seen: Seen, image: NDArray[np.float32], native: Native, preprocessing: Preprocessing
) -> None:
    """Shows one image to the baselines. image: (C, S, S) as the network sees it."""
    if detectors.intensity is not None and detectors.intensity_baseline is not None:
        bright = native_map(brightness(image), native.plane.shape[:2], preprocessing)
        other = replace(seen, score=detectors.intensity_baseline.score(image), change=None, mse=None)
        detectors.intensity.add(other, bright, native.mask)
    if isinstance(detectors.thumbnails, ThumbnailBaseline):
        detectors.thumbnail_scores.append(detectors.thumbnails.score(image))


def collect(predictor: Predictor, test: Dataset, detectors: Detectors, on_progress: Progress | None = None) -> None:
    """Shows every image of ``test`` to the method and to the baselines, one after the other."""
    answers = apply_dataset(predictor.method, test, predictor.device, batch_size=predictor.batch_size)
    for index, image, answer in answers:
        item, native = test.items[index], test.native(index)
        shape = native.plane.shape[:2]
        change = None if answer.healed is None else float(np.abs(image - answer.healed).mean() / 2)
        mse = None if answer.healed is None else stretched_distance(image, answer.healed)
        seen = Seen(item.key, item.row.path, item.patient_id, item.slice, item.label, answer.score, change, mse)
        anomaly_map = None if answer.anomaly_map is None else native_map(answer.anomaly_map, shape, predictor.preprocessing)
        detectors.method.add(seen, anomaly_map, native.mask)
        collect_baselines(detectors, seen, image, native, predictor.preprocessing)
        twin = None if answer.healed is None or item.label != DISEASED else against_twin(test, index, image, answer.healed)
        if twin is not None:
            detectors.twins.append(twin)
        if on_progress is not None:
            on_progress(index + 1, len(test), "images evaluated")


def _figures(predictor: Predictor, detectors: Detectors, bootstrap: int) -> dict[str, Any]:
    seen = detectors.method.seen
    draw = f.Resampler([s.patient for s in seen], bootstrap, SEED)
    method = method_figures(predictor, detectors, draw)
    base = baseline_figures(detectors, draw)
    tree = f.plain(method)
    if base:
        tree["baseline"] = f.plain(base)
        tree["margin"] = f.plain({name: f.margins(method, other) for name, other in base.items()})
    tree["paper"] = f.plain(f.paper_figures(detectors.method, draw))
    return tree


def method_figures(predictor: Predictor, detectors: Detectors, draw: f.Resampler) -> f.Tree:
    """What was collected of the method, as figures with their resamples."""
    localises = type(predictor.method).localises
    tree: f.Tree = {
        "image": f.image_figures(detectors.method, draw, predictor.thresholds.image.value),
        "patient": f.patient_figures(detectors.method, draw),
        "pixel": f.pixel_figures(detectors.method, draw, localises=localises),
        "lesion": f.lesion_figures(detectors.method, draw, localises=localises),
        "healthy": f.healthy_figures(detectors.method, draw, heals=type(predictor.method).heals),
    }
    if detectors.twins:
        tree["twin"] = twin_figures(detectors.twins, draw)
    return tree


def baseline_figures(detectors: Detectors, draw: f.Resampler) -> f.Tree:
    """The same of the baselines, by name; empty where there are none."""
    if detectors.intensity is None:
        return {}
    return {
        "threshold": {
            "image": f.image_figures(detectors.intensity, draw, called=False),
            "pixel": f.pixel_figures(detectors.intensity, draw),
            "lesion": f.lesion_figures(detectors.intensity, draw),
        },
        "thumbnail": {"image": _thumbnail_figures(detectors.intensity.seen, detectors, draw)},
    }


def _thumbnail_figures(seen: list[Seen], detectors: Detectors, draw: f.Resampler) -> f.Tree:
    scores = detectors.thumbnail_scores
    if not isinstance(detectors.thumbnails, ThumbnailBaseline):
        none = Figure(None, None, 0, str(detectors.thumbnails))
        return {"auroc": none, "ap": none}
    collector = Collector(None, None, 0)
    collector.seen = [replace(s, score=score) for s, score in zip(seen, scores, strict=True)]
    return f.image_figures(collector, draw, called=False)
