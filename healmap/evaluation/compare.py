"""``compare_runs``: several runs on the same labelled images, one after the other, and the trivial baselines once.

Every run sees the images as it was trained to, at its own working size; all figures are taken at the images' own size, on the
images that all runs admit and on the same resamples of patients, so that differences are those of paired data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import to_plain
from ..data.cache import cache_folder
from ..data.dataset import Dataset, manifest
from ..data.hashes import Hashes
from ..data.table import Table, read_table
from ..errors import DataError, HealError, UsageError, WriteError
from ..io.atomic import write_json
from ..training.manifest import versions
from . import figures as f
from .cases import Chosen, save_pictures
from .collect import Detectors
from .evaluate import SEED, collect, method_collector, method_figures
from .lineup import Cases, Identity, Looked, Request, View, admitted_by, bare, in_common, look, names_of, narrowed, shown_cases
from .notes import differing, together
from .parts import Part, Parts
from .record import bootstrap_facts, counts, data_name, digest, reason, run_facts, training_facts
from .trivial import ALL, DISEASED_ONLY, Trivial

FORMAT, VERSION = "healmap-comparison", 1
OUTPUTS = ("table.csv", "table.md", "compare.html", "compare.json")
Tell = Callable[[str], None]


def _claim(out: Path) -> None:
    """Nothing is written into a folder that holds other things than an earlier comparison."""
    if out.exists() and not out.is_dir():
        raise UsageError("the output folder is a file", where=str(out), hint="name a new folder")
    held = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.is_dir() else []
    foreign = [name for name in held if name not in (*OUTPUTS, "parts")]
    if foreign:
        raise UsageError(f"the output folder holds other things: {foreign[0]}", where=str(out), hint="name a new folder")


@dataclass(frozen=True)
class Evaluated:
    """What is kept of a run: figures and facts, no pixels."""

    part: Part
    about: dict[str, Any]
    notes: list[str]
    shown: str


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
    notes: Sequence[str] = (),
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Evaluates every run on the labelled images of ``split`` and writes ``compare.json`` and ``parts/`` below ``out``.

    Thresholds are those of each run, from validation data. A run that cannot be evaluated is listed with its reason. A method
    that takes images known to be diseased only is shown these, and compared with baselines on these, unless
    ``assume_diseased``. Differences are to the first run. What an earlier comparison in ``out`` found is used again where
    weights, thresholds, images, settings and code are the same. One run is in memory at a time. Tables and pages of an earlier
    comparison are removed: they would be of other figures.

    Args:
        runs: run folders; the last part of a path, or as much as tells them apart, names a run.
        bootstrap: resamples of patients for the intervals.
        cases: diseased images, and as many healthy ones, whose maps are kept; the choice depends on the images alone.
        notes: facts about the data that a reader must know.
        tell: called with one line per run.

    Returns:
        What ``compare.json`` holds; ``failed`` lists the runs that could not be evaluated.

    Raises:
        UsageError: no run, one is named twice, no such split, or what is wrong with the data is wrong for every run alike.
        DataError: no run could be evaluated, each for its own reason. WriteError: ``out`` cannot be written.
    """
    out, named = Path(out), names_of(runs)
    table = data if isinstance(data, Table) else read_table(data)
    request = Request(table, split, weights, device, bootstrap, assume_diseased, cases)
    _check(request)
    _claim(out)
    parts = Parts(out / "parts")
    for file in OUTPUTS:
        (out / file).unlink(missing_ok=True)
    admit, failed = admitted_by(named, request)
    while True:
        common, strangers = in_common(admit)
        ready, broken, trivial = _evaluate_all(named, common, failed | strangers, request, parts, tell)
        failed |= broken
        admit = {name: mine for name, mine in admit.items() if name not in broken}
        # A run that fails must not have decided which images the others are compared on.
        if not admit or in_common(admit)[0] == common:
            break
        tell(f"once more without {', '.join(broken)}: the other runs have more images in common")
    failed = {name: error for name in named if (error := (failed | strangers).get(name)) is not None}
    if trivial is None:
        raise _nothing(failed)
    base = {shown: trivial.of(shown, parts) for shown in dict.fromkeys([ALL, *(e.shown for e in ready.values())])}
    tree = _tree(ready, trivial, base)
    tree["failed"] = [{"run": name, "error": reason(error, named[name], table)} for name, error in failed.items()]
    tree["notes"] = [*notes, *narrowed({name: admit[name] for name in ready}, common), *tree["notes"]]
    write_json(out / "compare.json", tree)
    parts.forget_the_rest()
    return tree


def _check(request: Request) -> None:
    have = sorted({row.split for row in request.table.rows if row.split})
    if request.split not in have:
        hint = f"the table has {', '.join(have)}" if have else "make splits with 'healmap data split'"
        raise UsageError(f"no row belongs to split '{request.split}'", where=request.table.name, hint=hint)
    if request.cases < 0 or request.bootstrap < 0:
        raise UsageError("cases and bootstrap are counts", hint="give 0 or more")


def _evaluate_all(
    named: Mapping[str, Path], common: Sequence[Identity], absent: Mapping[str, HealError], request: Request, parts: Parts,
    tell: Tell,
) -> tuple[dict[str, Evaluated], dict[str, HealError], Trivial | None]:  # fmt: skip
    """What was found of every run that is not absent; the runs that failed; the baselines, in the first run's view."""
    ready: dict[str, Evaluated] = {}
    failed: dict[str, HealError] = {}
    trivial: Trivial | None = None
    cases: Cases = next((shown_cases(run, request, common) for name, run in named.items() if name not in absent), {})
    for name, run in named.items():
        start = time.monotonic()
        found = absent[name] if name in absent else _attempt(run, request, common, cases, parts)
        if isinstance(found, HealError):
            tell(f"{name}: {reason(found, run, request.table)}")
            if name not in absent:
                failed[name] = found
            continue
        ready[name], view = found
        trivial = trivial or Trivial(name, view, cases, request)
        part = ready[name].part
        tell(f"{name}: {part.facts['images']} images, {'found before' if part.again else f'{time.monotonic() - start:.1f} s'}")
    return ready, failed, trivial


def _attempt(
    run: Path, request: Request, common: Sequence[Identity], cases: Cases, parts: Parts
) -> tuple[Evaluated, View] | HealError:
    """A run evaluated and forgotten, or why it could not be. What cannot be written is no fault of a run.

    Raises:
        WriteError: the disk is full.
    """
    try:
        looked = look(run, request, common)
        return _evaluate(looked, run, cases, request, parts), looked.view
    except WriteError:
        raise
    except HealError as error:
        return bare(error)
    except (RuntimeError, MemoryError) as error:  # of a network, as a rule: out of memory, or a shape that it does not take
        return DataError(f"its evaluation stopped with {type(error).__name__}", hint=str(error) or "free some memory")


def _evaluate(looked: Looked, run: Path, cases: Cases, request: Request, parts: Parts) -> Evaluated:
    predictor, test = looked.predictor, looked.test
    shown = [i for i, item in enumerate(test.items) if item.key in cases]
    depends = {
        "what": "run",
        "weights": predictor.weights_sha256,
        "card": digest(predictor.card),
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
        seen = detectors.method.seen
        save_pictures([Chosen(i, ("common",)) for i in shown], seen, test, predictor, folder)
        draw = f.Resampler([s.patient for s in seen], request.bootstrap, SEED)
        return method_figures(predictor, detectors, draw), counts(detectors.method)

    part, method = parts.of(depends, make), type(predictor.method)
    about = {
        **run_facts(predictor),
        "localises": method.localises,
        "heals": method.heals,
        "training": training_facts(run),
        "min_area": predictor.detection.min_area,
        "domains": list(predictor.method.spec.domains.names),
        "evaluated": part.facts,
        "pictures": f"parts/{part.folder}",
    }
    return Evaluated(part, about, looked.notes, ALL if len(test) == len(looked.view.whole) else DISEASED_ONLY)


def _twins(dataset: Dataset) -> str:
    """Hash of the healthy twins, which a fingerprint does not cover."""
    files = [dataset.table.root / item.row["twin"] for item in dataset.items if item.row["twin"] and item.slice is None]
    with Hashes(cache_folder()) as hashes:
        return digest([hashes.of(file) if file.is_file() else "" for file in files])


# ---- what is written ---------------------------------------------------------------------------------------------------


def _tree(ready: Mapping[str, Evaluated], trivial: Trivial, base: Mapping[str, Part]) -> dict[str, Any]:
    reference, first = next(iter(ready.items()))
    rows = [_row(name, found, base[found.shown], first) for name, found in ready.items()]
    whole, facts, request = trivial.view.whole, base[ALL].facts, trivial.request
    described = [(i.key, pixels, i.label, i.patient_id) for i, pixels in zip(whole.items, whole.pixel_hashes, strict=True)]
    return {
        "format": FORMAT,
        "version": VERSION,
        # The hash of images and labels: a dataset's own fingerprint holds the working size, which differs between runs.
        "data": {**manifest(whole), "name": data_name(whole), "fingerprint": digest(described)},
        "evaluated": {name: facts[name] for name in ("images", "labelled", "patients", "annotated")},
        "bootstrap": bootstrap_facts(request.bootstrap, SEED),
        "cases": [{"key": key, "label": label, "patient": patient} for key, (label, patient) in trivial.cases.items()],
        "reference": reference,
        "runs": rows,
        "baselines": {
            "prepared_as": trivial.name,
            "about": facts["about"],
            "figures": {shown: f.plain(part.figures) for shown, part in base.items()},
            "pictures": f"parts/{base[ALL].folder}",
        },
        "notes": [*differing(rows), *together({name: found.notes for name, found in ready.items()})],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _row(name: str, found: Evaluated, base: Part, first: Evaluated) -> dict[str, Any]:
    mine = found.part.figures
    row = {"run": name, **found.about, "shown": found.shown, "figures": f.plain(mine)}
    row["margin"] = f.plain({kind: f.margins(mine, other) for kind, other in base.figures.items()})
    if found is not first and found.shown == first.shown:
        row["difference"] = f.plain(f.margins(mine, {part: first.part.figures[part] for part in ("image", "pixel")}))
    return row


def _nothing(failed: Mapping[str, HealError]) -> HealError:
    """What is wrong for every run alike is wrong with the request: its own error. Otherwise all reasons in one line."""
    reasons = {str(error): error for error in failed.values()}
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    return DataError("no run could be evaluated", hint="; ".join(f"{name}: {error}" for name, error in failed.items()))
