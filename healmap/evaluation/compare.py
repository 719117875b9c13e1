"""``compare_runs``: several runs on the same labelled images, one after the other, and the trivial baselines once.

Every run sees the images as it was trained to, at its own working size; all figures are taken at the images' own size, on the
images that all runs admit and on the same resamples of patients, so that differences are those of paired data.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import to_plain
from ..data.dataset import Dataset, manifest
from ..data.table import Table, read_table
from ..detection.predictor import Predictor
from ..errors import CheckpointError, DataError, HealError, UsageError
from ..io.atomic import write_json
from ..io.hashing import sha256_file
from ..types import DISEASED, HEALTHY
from . import figures as f
from .baselines import ThumbnailBaseline
from .cases import Chosen, save_pictures
from .collect import Collector, Detectors, Seen
from .evaluate import (
    SEED,
    admitted,
    baseline_figures,
    collect,
    collect_baselines,
    ensure_thresholds,
    fit_baselines,
    method_collector,
    method_figures,
    open_sets,
)
from .notes import differing, together
from .parts import Part, Parts
from .record import data_name, read_json

FORMAT, VERSION = "healmap-comparison", 1
FIGURES = ("image.auroc", "image.ap", "pixel.ap", "pixel.dice", "pixel.dice_best")  # the table's
ALL, DISEASED_ONLY = "all", "diseased"  # images that a run was shown
Identity = tuple[str, str]  # an image's key and the hash of its pixels at their own size
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What every run is asked alike."""

    table: Table
    split: str
    weights: str = "best"
    device: str = "auto"
    bootstrap: int = 500
    assume_diseased: bool = False
    cases: int = 3


def compare_runs(
    runs: Sequence[Path | str],
    data: Path | str | Table,
    split: str,
    out: Path | str,
    *,
    weights: str = "best",
    device: str = "auto",
    bootstrap: int = 500,
    assume_diseased: bool = False,
    cases: int = 3,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Evaluates every run on the labelled images of ``split`` and writes ``compare.json`` and ``parts/`` below ``out``.

    Thresholds are those of each run, from validation data. A run that cannot be evaluated is listed with its reason. A method
    that takes images known to be diseased only is shown these, and compared with baselines on these, unless
    ``assume_diseased``. Differences are to the first run. What an earlier comparison in ``out`` found is used again where
    weights, thresholds, images, settings and code are the same. One run is in memory at a time.

    Args:
        runs: run folders; the last part of a path, or as much as tells them apart, names a run.
        bootstrap: resamples of patients for the intervals.
        cases: diseased images, and as many healthy ones, whose maps are kept; the choice depends on the images alone.
        tell: called with one line per run.

    Returns:
        What ``compare.json`` holds; ``failed`` lists the runs that could not be evaluated.

    Raises:
        UsageError: no run, one is named twice, no such split, or what is wrong with the data is wrong for every run alike.
        DataError: no run could be evaluated, each for its own reason.
    """
    out, named = Path(out), names_of(runs)
    table = data if isinstance(data, Table) else read_table(data)
    have = sorted({row.split for row in table.rows if row.split})
    if split not in have:
        hint = f"the table has {', '.join(have)}" if have else "make splits with 'healmap data split'"
        raise UsageError(f"no row belongs to split '{split}'", where=table.name, hint=hint)
    if cases < 0 or bootstrap < 0:
        raise UsageError("cases and bootstrap are counts", hint="give 0 or more")
    request = Request(table, split, weights, device, bootstrap, assume_diseased, cases)
    common, failed, notes = _common(named, request)
    parts = Parts(out / "parts")
    ready: dict[str, _Evaluated] = {}
    baselines: _Baselines | None = None
    for name, run in named.items():
        if name in failed:
            tell(f"{name}: {_reason(failed[name], run)}")
            continue
        start = time.monotonic()
        try:
            looked = _look(run, request, common)
            if baselines is None:
                baselines = _Baselines(name, looked, request)
            ready[name] = _evaluate(looked, baselines, request, parts)
        except HealError as error:
            failed[name] = error
            tell(f"{name}: {_reason(error, run)}")
        else:
            done = "found before" if ready[name].part.again else f"{time.monotonic() - start:.1f} s"
            tell(f"{name}: {ready[name].seen} images, {done}")
    if not ready or baselines is None:
        raise _nothing(failed)
    trivial = {shown: baselines.of(shown, parts) for shown in dict.fromkeys([ALL, *(e.shown for e in ready.values())])}
    reasons = {name: _reason(failed[name], run) for name, run in named.items() if name in failed}
    tree = _record(ready, reasons, trivial, baselines, request, notes)
    write_json(out / "compare.json", tree)
    parts.forget_the_rest()
    return tree


def names_of(runs: Sequence[Path | str]) -> dict[str, Path]:
    """Name -> folder, in order: the last part of a path, or as many as tell the runs apart.

    Raises:
        UsageError: no run, or one stands there twice.
    """
    if not runs:
        raise UsageError("nothing to compare", hint="name at least one run folder")
    places = [Path(os.path.abspath(run)) for run in runs]
    for k, place in enumerate(places):
        if place in places[:k]:
            raise UsageError("a run is named twice", where=str(runs[k]), hint="name each run once")

    def last(place: Path, count: int) -> tuple[str, ...]:
        return place.parts[-count:]

    named = {}
    for place, run in zip(places, runs, strict=True):
        count = 1
        while sum(last(other, count) == last(place, count) for other in places) > 1:
            count += 1
        named["/".join(last(place, count))] = Path(run)
    return named


# ---- one run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Looked:
    """A run before it sees an image. whole: the images of the comparison; test: those that the method may be shown."""

    run: Path
    predictor: Predictor
    sets: Mapping[str, Dataset]
    whole: Dataset
    test: Dataset
    notes: list[str]


@dataclass(frozen=True)
class _Evaluated:
    """What is kept of a run: figures and facts, no pixels."""

    part: Part
    about: dict[str, Any]
    notes: list[str]
    shown: str
    seen: int


def _common(named: Mapping[str, Path], request: Request) -> tuple[list[Identity], dict[str, HealError], list[str]]:
    """The images that all usable runs admit, in the order of the table; the runs that are not usable; and notes.

    A run's settings may leave images out (``data.select``, slices close to a lesion, planes along another axis).
    """
    common: dict[Identity, None] = {}
    failed: dict[str, HealError] = {}
    sizes: dict[str, int] = {}
    for name, run in named.items():
        try:
            _, sets, _ = _open(run, request)
        except HealError as error:
            failed[name] = error
            continue
        mine = dict.fromkeys(_identities(sets[request.split]))
        kept = {image: None for image in common if image in mine} if sizes else mine
        if not kept:
            hint = "compare it with runs that were trained on the same kind of images"
            failed[name] = UsageError("its data settings admit none of the images that the runs before it admit", hint=hint)
            continue
        common, sizes[name] = kept, len(mine)
    more = [f"{name} {size}" for name, size in sizes.items() if size != len(common)]
    notes = []
    if more:
        notes.append(
            f"data settings admit different images: the comparison is on the {len(common)} that all admit ({', '.join(more)})"
        )
    return list(common), failed, notes


def _identities(dataset: Dataset) -> Iterator[Identity]:
    return ((item.key, pixels) for item, pixels in zip(dataset.items, dataset.pixel_hashes, strict=True))


def _open(run: Path, request: Request) -> tuple[Predictor, dict[str, Dataset], list[str]]:
    if not run.is_dir():
        raise CheckpointError("no such run folder", where=str(run), hint="give folders made by healmap train")
    predictor = Predictor.load(run, request.weights, request.device)
    spec, seen = predictor.method.spec, predictor.preprocessing.config
    if (spec.channels, spec.height, spec.width) != (seen.channels, seen.size, seen.size):
        prepared = f"{seen.channels} x {seen.size} x {seen.size}"
        raise CheckpointError(
            f"the method takes images of {spec.channels} x {spec.height} x {spec.width}, its card prepares {prepared}",
            where=str(run), hint="train again",
        )  # fmt: skip
    sets, notes = open_sets(request.table, request.split, predictor)
    return predictor, sets, notes


def _look(run: Path, request: Request, common: Sequence[Identity]) -> _Looked:
    predictor, sets, notes = _open(run, request)
    place = {image: i for i, image in enumerate(_identities(sets[request.split]))}
    whole = sets[request.split].subset([place[image] for image in common])
    test, more = admitted(whole, predictor, assume_diseased=request.assume_diseased)
    ensure_thresholds(predictor, sets, run, request.weights)
    trained = read_json(run / "manifest.json")
    if trained and not {"finished", "imported"} & set(trained):
        more.append("its training was not finished")
    return _Looked(run, predictor, sets, whole, test, [*trained.get("notes", []), *notes, *more])


def _evaluate(looked: _Looked, baselines: _Baselines, request: Request, parts: Parts) -> _Evaluated:
    predictor, test = looked.predictor, looked.test
    shown = [i for i, item in enumerate(test.items) if item.key in baselines.cases]
    depends = {
        "what": "run",
        "weights": predictor.weights_sha256,
        "card": _digest(predictor.card),
        "thresholds": to_plain(predictor.thresholds),
        "images": test.fingerprint,
        "twins": _twins(test),
        "shown": [test.items[i].key for i in shown],
        "bootstrap": [request.bootstrap, SEED],
        "device": [str(predictor.device), torch.get_num_threads()],
    }

    def make(folder: Path) -> tuple[f.Tree, dict[str, Any]]:
        detectors = Detectors(method_collector(predictor))
        collect(predictor, test, detectors)
        save_pictures([Chosen(i, ("common",)) for i in shown], detectors.method.seen, test, predictor, folder)
        seen = detectors.method.seen
        draw = f.Resampler([s.patient for s in seen], request.bootstrap, SEED)
        return method_figures(predictor, detectors, draw), _counts(detectors.method)

    part = parts.of(depends, make)
    images = ALL if len(test) == len(looked.whole) else DISEASED_ONLY
    return _Evaluated(part, _about(looked, part), looked.notes, images, len(test))


def _about(looked: _Looked, part: Part) -> dict[str, Any]:
    """The run in plain data."""
    predictor, card, method = looked.predictor, looked.predictor.card, type(looked.predictor.method)
    trained = read_json(looked.run / "manifest.json")
    finished = trained.get("finished") or {}
    return {
        "method": card.get("method"),
        "title": method.title,
        "needs": method.needs.value,
        "localises": method.localises,
        "heals": method.heals,
        "recipe": card.get("recipe", ""),
        "weights": {
            "name": predictor.thresholds.weights,
            "sha256": predictor.weights_sha256,
            "step": card.get("step"),
            "chosen": card.get("chosen", ""),
        },
        "training": {
            "steps": finished.get("steps"),
            "seconds": finished.get("seconds"),
            "peak_mb": finished.get("peak_mb"),
            "processor": (trained.get("machine") or {}).get("processor"),
            **{key: trained.get(key) for key in ("threads", "device", "precision", "seed", "git")},
        },
        "settings": {"method": to_plain(predictor.method.config), "data": to_plain(predictor.data)},
        "min_area": predictor.detection.min_area,
        "domains": list(predictor.method.spec.domains.names),
        "thresholds": to_plain(replace(predictor.thresholds, sweep=())),
        "evaluated": part.facts,
        "pictures": f"parts/{part.folder}",
    }


def _counts(collector: Collector) -> dict[str, int]:
    seen = collector.seen
    return {
        "images": len(seen),
        "labelled": len(collector.labelled()),
        "patients": len({s.patient for s in seen}),
        "annotated": collector.annotated,
    }


def _twins(dataset: Dataset) -> str:
    """Hash of the healthy twins, which a fingerprint does not cover."""
    files = [dataset.table.root / item.row["twin"] for item in dataset.items if item.row["twin"] and item.slice is None]
    return _digest([sha256_file(file) if file.is_file() else "" for file in files])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


# ---- the baselines -----------------------------------------------------------------------------------------------------


class _Baselines:
    """The trivial baselines on the images as the first usable run sees them; fitted when first asked for.

    cases: the images that are shown for every run: key -> label, patient.
    """

    def __init__(self, name: str, looked: _Looked, request: Request) -> None:
        self.name, self.request = name, request
        self.sets, self.whole = looked.sets, looked.whole
        self.preprocessing, self.min_area = looked.predictor.preprocessing, looked.predictor.detection.min_area
        chosen = [self.whole.items[i] for i in choose_cases(self.whole, request.cases)]
        self.cases = {item.key: (item.label, item.patient_id) for item in chosen}
        self._fitted: Detectors | None = None

    def of(self, shown: str, parts: Parts) -> Part:
        """Figures over all images, or over the diseased ones."""
        items = self.whole.items
        chosen = [i for i in range(len(items)) if shown == ALL or items[i].label == DISEASED]
        test = self.whole.subset(chosen)
        depends = {
            "what": "baselines",
            "preprocessing": self.preprocessing.to_plain(),
            "min_area": self.min_area,
            "fitted on": {name: self.sets[name].fingerprint for name in ("train", "val") if name in self.sets},
            "split": self.request.split,
            "images": test.fingerprint,
            "bootstrap": [self.request.bootstrap, SEED],
        }

        def make(folder: Path) -> tuple[f.Tree, dict[str, Any]]:
            if self._fitted is None:
                split = self.request.split
                self._fitted = fit_baselines(self.sets, split, self.preprocessing, min_area=self.min_area)
            intensity, thumbnails = self._fitted.intensity_baseline, self._fitted.thumbnails
            assert intensity is not None
            collector = Collector(intensity.pixel_threshold, np.array(intensity.sweep), self.min_area)
            detectors = replace(self._fitted, intensity=collector, thumbnail_scores=[])
            for index, item in enumerate(test.items):
                seen = Seen(item.key, item.row.path, item.patient_id, item.slice, item.label, 0.0)
                collect_baselines(detectors, seen, test.image(index), test.native(index), self.preprocessing)
            draw = f.Resampler([item.patient_id for item in test.items], self.request.bootstrap, SEED)
            about = {
                "threshold": intensity.about(),
                "thumbnail": thumbnails.about() if isinstance(thumbnails, ThumbnailBaseline) else {"model": str(thumbnails)},
            }
            return baseline_figures(detectors, draw), {**_counts(collector), "about": about}

        return parts.of(depends, make)


def choose_cases(dataset: Dataset, each: int) -> list[int]:
    """``each`` diseased images with a lesion in sight, then as many healthy ones, of as many patients as there are.

    The choice hangs on the images' names alone, never on what a run makes of them.
    """
    order = sorted(range(len(dataset)), key=lambda i: hashlib.sha256(dataset.items[i].key.encode()).digest())
    return [
        *_of_each_patient((i for i in order if dataset.items[i].label == DISEASED and _lesion(dataset, i)), dataset, each),
        *_of_each_patient((i for i in order if dataset.items[i].label == HEALTHY), dataset, each),
    ]


def _lesion(dataset: Dataset, index: int) -> bool:
    """False where the annotation is empty on the working grid; an image without annotation may hold anything."""
    mask = dataset.mask(index)
    return mask is None or bool(mask.any())


def _of_each_patient(ranked: Iterable[int], dataset: Dataset, count: int) -> list[int]:
    first: dict[str, int] = {}
    later: list[int] = []
    for i in ranked:
        patient = dataset.items[i].patient_id
        if patient in first:
            later.append(i)
        else:
            first[patient] = i
    return [*first.values(), *later][:count]


# ---- what is written ---------------------------------------------------------------------------------------------------


def _record(
    ready: Mapping[str, _Evaluated],
    failed: Mapping[str, str],
    trivial: Mapping[str, Part],
    baselines: _Baselines,
    request: Request,
    notes: list[str],
) -> dict[str, Any]:
    from ..training.manifest import versions

    reference, first = next(iter(ready.items()))
    rows = []
    for name, found in ready.items():
        mine, base = found.part.figures, trivial[found.shown].figures
        row = {"run": name, **found.about, "shown": found.shown, "figures": f.plain(mine)}
        row["margin"] = f.plain({kind: f.margins(mine, other) for kind, other in base.items()})
        if name != reference and found.shown == first.shown:
            row["difference"] = f.plain(f.margins(mine, {part: first.part.figures[part] for part in ("image", "pixel")}))
        rows.append(row)
    whole, facts = baselines.whole, dict(trivial[ALL].facts)
    described = [(i.key, pixels, i.label, i.patient_id) for i, pixels in zip(whole.items, whole.pixel_hashes, strict=True)]
    about = manifest(whole)
    return {
        "format": FORMAT,
        "version": VERSION,
        # The hash of images and labels: a dataset's own fingerprint holds the working size, which differs between runs.
        "data": {**about, "name": data_name(whole), "fingerprint": _digest(described)},
        "evaluated": {name: facts[name] for name in ("images", "labelled", "patients", "annotated")},
        "bootstrap": {"resamples": request.bootstrap, "of": "patients", "level": 0.95, "seed": SEED},
        "cases": [{"key": key, "label": label, "patient": patient} for key, (label, patient) in baselines.cases.items()],
        "reference": reference,
        "runs": rows,
        "failed": [{"run": name, "error": error} for name, error in failed.items()],
        "baselines": {
            "prepared_as": baselines.name,
            "about": facts["about"],
            "figures": {shown: f.plain(part.figures) for shown, part in trivial.items()},
        },
        "notes": [*notes, *differing(rows), *together({n: e.notes for n, e in ready.items()}), *about["notes"]],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _reason(error: HealError, run: Path) -> str:
    """The error without the run's own folder: the run is named beside it, and pages travel."""
    where = "" if error.where.startswith(str(run)) else error.where
    return str(HealError(error.what, where=where, hint=error.hint))


def _nothing(failed: Mapping[str, HealError]) -> HealError:
    """What is wrong for every run alike is wrong with the request: its own error. Otherwise all reasons in one line."""
    reasons = {str(error): error for error in failed.values()}
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    return DataError("no run could be evaluated", hint="; ".join(f"{name}: {error}" for name, error in failed.items()))
