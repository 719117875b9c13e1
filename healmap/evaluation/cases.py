"""Which images the report shows, and their pictures: chosen by rule, never by hand.

``pictures.npz`` beside the figures holds them as arrays, so that a page can be made again, or one page of several runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..detection.apply import apply_dataset, to_native
from ..detection.overlay import drawn_size, enlarge, grey
from ..io.atomic import replacing, write_json
from ..types import DISEASED, HEALTHY
from .collect import Seen

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.preprocess import Preprocessing
    from ..detection.predictor import Predictor

LARGEST = 256  # side length of stored pictures
ROLES = {
    "best": "found best",
    "worst": "missed most",
    "alarm": "healthy, highest score",
    "calm": "healthy, middle score",
    "common": "the same for every method",
}


@dataclass(frozen=True)
class Chosen:
    index: int
    roles: tuple[str, ...]


def choose(seen: Sequence[Seen], each: int = 4) -> list[Chosen]:
    """Best and worst diseased images (by Dice at the validation threshold; by score without masks), healthy ones with the
    highest and with a middle score, and some that depend on the images alone. At most one image per patient and role.
    """
    places = range(len(seen))
    diseased = [i for i in places if seen[i].label == DISEASED]
    healthy = sorted((i for i in places if seen[i].label == HEALTHY), key=lambda i: -seen[i].score)
    # Of equally missed lesions the largest comes first: it is the one that should not have been missed.
    rated = [i for i in diseased if seen[i].dice is not None]
    if rated:
        best = sorted(rated, key=lambda i: -(seen[i].dice or 0.0))
        worst = sorted(rated, key=lambda i: (round(seen[i].dice or 0.0, 2), -(seen[i].lesion_pixels or 0)))
    else:
        best = sorted(diseased, key=lambda i: -seen[i].score)
        worst = best[::-1]
    middle = sorted(healthy, key=lambda i: abs(seen[i].score - float(np.median([seen[k].score for k in healthy]))))
    chance = _by_chance([s.key for s in seen])
    patients = [s.patient for s in seen]
    common = _spread([i for i in chance if seen[i].label == DISEASED and seen[i].lesion_pixels != 0], patients, each)
    common += _spread([i for i in chance if seen[i].label == HEALTHY], patients, 2)
    picked = {
        "best": _spread(best, patients, each),
        "worst": _spread(worst, patients, each),
        "alarm": _spread(healthy, patients, 3),
        "calm": _spread(middle, patients, 2),
        "common": common,
    }
    order = list(dict.fromkeys(i for group in picked.values() for i in group))
    return [Chosen(i, tuple(role for role, group in picked.items() if i in group)) for i in order]


def choose_cases(dataset: Dataset, each: int) -> list[int]:
    """``each`` diseased images with a lesion in sight, then as many healthy ones, of as many patients as there are.

    The choice hangs on the images' names alone, never on what a run makes of them.
    """
    items = dataset.items
    chance, patients = _by_chance([item.key for item in items]), [item.patient_id for item in items]
    diseased = [i for i in chance if items[i].label == DISEASED and _lesion(dataset, i)]
    healthy = [i for i in chance if items[i].label == HEALTHY]
    return [*_spread(diseased, patients, each), *_spread(healthy, patients, each)]


def _lesion(dataset: Dataset, index: int) -> bool:
    """False where the annotation is empty on the working grid; an image without annotation may hold anything."""
    mask = dataset.mask(index)
    return mask is None or bool(mask.any())


def _by_chance(keys: Sequence[str]) -> list[int]:
    return sorted(range(len(keys)), key=lambda i: hashlib.sha256(keys[i].encode()).digest())


def _spread(ranked: Sequence[int], patients: Sequence[str], count: int) -> list[int]:
    """The first of each patient, ``count`` of them; if patients are few, their next ones. In the order of ``ranked``."""
    first: list[int] = []
    later: list[int] = []
    known: set[str] = set()
    for i in ranked:
        (later if patients[i] in known else first).append(i)
        known.add(patients[i])
    return sorted((first + later)[:count], key=list(ranked).index)


def save_cases(indices: Sequence[int], dataset: Dataset, preprocessing: Preprocessing, out: Path) -> None:
    """Writes inputs and annotations as :func:`save_pictures` does, without what any method makes of them."""
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    for number, index in enumerate(indices):
        native, item = dataset.native(index), dataset.items[index]
        shape = drawn_size(*native.plane.shape[:2], 1, LARGEST)  # type: ignore[call-arg,misc]
        shown = {"input": enlarge(grey(native.plane, native.stats, preprocessing), shape)}
        if native.mask is not None:
            shown["truth"] = enlarge(native.mask, shape)
        arrays |= {f"{number}/{name}": array for name, array in shown.items()}
        lesion = None if native.mask is None else int(native.mask.sum())
        rows.append({"number": number, "key": item.key, "lesion_pixels": lesion})
    _write(out, arrays, rows)


def save_pictures(chosen: Sequence[Chosen], seen: Sequence[Seen], dataset: Dataset, predictor: Predictor, out: Path) -> None:
    """Writes ``pictures.npz`` and ``pictures.json``: for each image input, healed, signed difference, map, and masks, at most
    256 pixels a side. Greys are in [0, 1] over the run's normalisation, the difference is image minus healed in the same unit.
    """
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    indices = [c.index for c in chosen]
    answers = apply_dataset(predictor.method, dataset, predictor.device, batch_size=predictor.batch_size, indices=indices)
    for number, (choice, (index, image, answer)) in enumerate(zip(chosen, answers, strict=True)):
        native = dataset.native(index)
        result = to_native(answer, image, native.plane, native.stats, predictor.preprocessing)
        shape = drawn_size(*native.plane.shape[:2], 1, LARGEST)  # type: ignore[call-arg,misc]
        shown = {"input": enlarge(grey(native.plane, native.stats, predictor.preprocessing), shape)}
        if result.healed is not None:
            shown["healed"] = enlarge(grey(result.healed, native.stats, predictor.preprocessing), shape)
            shown["difference"] = shown["input"] - shown["healed"]
        if result.anomaly_map is not None:
            shown["map"] = enlarge(result.anomaly_map, shape)
        for name, mask in (("truth", native.mask), ("mask", predictor.mask(result.anomaly_map))):
            if mask is not None:
                shown[name] = enlarge(mask, shape)
        arrays |= {f"{number}/{name}": array for name, array in shown.items()}
        s = seen[index]
        rows.append({"number": number, "key": s.key, "patient": s.patient, "label": s.label, "score": s.score, "dice": s.dice,
                     "lesion_pixels": s.lesion_pixels, "roles": list(choice.roles)})  # fmt: skip
    _write(out, arrays, rows)


def _write(out: Path, arrays: Mapping[str, NDArray[Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    small = {name: array if array.dtype == bool else array.astype(np.float16) for name, array in arrays.items()}
    with replacing(out / "pictures.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **small)  # type: ignore[arg-type]
    write_json(out / "pictures.json", rows)
