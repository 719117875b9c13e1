"""The runs of a comparison before they see an image: their names, the images that all of them admit, and how each is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import from_plain
from ..data.dataset import Dataset, open_dataset
from ..data.preprocess import Preprocessing
from ..data.table import Table
from ..detection.predictor import Predictor, data_settings, prepared, weights_path
from ..errors import CheckpointError, HealError, UsageError
from ..methods.weights import read_card
from ..types import Spec
from .cases import choose_cases
from .evaluate import admitted, ensure_thresholds, open_sets
from .record import printable, training_notes

Identity = tuple[str, str]  # an image's key and the hash of its pixels at their own size
Cases = Mapping[str, tuple[str, str]]  # the images on the page, by key: label and patient


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


@dataclass(frozen=True)
class View:
    """Images as a run sees them. whole: those of the comparison; sets: the split that they are of, train and val."""

    sets: Mapping[str, Dataset]
    whole: Dataset
    preprocessing: Preprocessing
    min_area: int


@dataclass(frozen=True)
class Looked:
    """A run before it sees an image. test: the images of the comparison that the method may be shown."""

    predictor: Predictor
    view: View
    test: Dataset
    notes: list[str]


def names_of(runs: Sequence[Path | str]) -> dict[str, Path]:
    """Name -> folder, in order: the last part of a path, or as many as tell the runs apart.

    Raises:
        UsageError: no run, or one stands there twice.
    """
    if not runs:
        raise UsageError("nothing to compare", hint="name at least one run folder")
    places = [Path(os.path.abspath(run)) for run in runs]
    same = [place.resolve() for place in places]
    for k, place in enumerate(same):
        if place in same[:k]:
            raise UsageError("a run is named twice", where=str(runs[k]), hint="name each run once")

    def last(place: Path, count: int) -> str:
        return printable("/".join(place.parts[-count:]))

    named = {}
    for place, run in zip(places, runs, strict=True):
        count = 1
        while count < len(place.parts) and sum(last(other, count) == last(place, count) for other in places) > 1:
            count += 1
        named[last(place, count)] = Path(run)
    return named


def admitted_by(named: Mapping[str, Path], request: Request) -> tuple[dict[str, list[Identity]], dict[str, HealError]]:
    """The images of the split that the settings of each run admit, and the runs that cannot tell. Only cards are read.

    A run's settings may leave images out (``data.select``, slices close to a lesion, planes along another axis).
    """
    admit: dict[str, list[Identity]] = {}
    failed: dict[str, HealError] = {}
    for name, run in named.items():
        try:
            admit[name] = list(_identities(_split_of(run, request)))
        except HealError as error:
            failed[name] = bare(error)
    return admit, failed


def in_common(admit: Mapping[str, Iterable[Identity]]) -> tuple[list[Identity], dict[str, HealError]]:
    """The images that all runs admit, in the order of the table, and the runs that share none with those before them."""
    common: dict[Identity, None] = {}
    strangers: dict[str, HealError] = {}
    for name, mine in admit.items():
        own = dict.fromkeys(mine)
        kept = {image: None for image in common if image in own} if common else own
        if kept:
            common = kept
        else:
            hint = "compare it with runs that were trained on the same kind of images"
            strangers[name] = UsageError("its data settings admit none of the images that the runs before it admit", hint=hint)
    return list(common), strangers


def narrowed(admit: Mapping[str, Sequence[Identity]], common: Sequence[Identity]) -> list[str]:
    """A note on the runs that admit more than what all have in common."""
    more = [f"{name} {len(mine)}" for name, mine in admit.items() if len(mine) != len(common)]
    what = f"data settings admit different images: the comparison is on the {len(common)} that all admit"
    return [f"{what} ({', '.join(more)})"] if more else []


def shown_cases(run: Path, request: Request, common: Sequence[Identity]) -> Cases:
    """The images that are shown for every run. They are the same for any run of the comparison."""
    whole = _common_of(_split_of(run, request), common)
    chosen = [whole.items[i] for i in choose_cases(whole, request.cases)]
    return {item.key: (item.label, item.patient_id) for item in chosen}


def look(run: Path, request: Request, common: Sequence[Identity]) -> Looked:
    """Loads a run and opens the images for it.

    Raises:
        HealError: weights or data are not what they should be.
    """
    predictor = Predictor.load(run, request.weights, request.device)
    sets, notes = open_sets(request.table, request.split, predictor)
    whole = _common_of(sets[request.split], common)
    test, more = admitted(whole, predictor, assume_diseased=request.assume_diseased)
    more += ensure_thresholds(predictor, sets, run, request.weights)
    view = View(sets, whole, predictor.preprocessing, predictor.detection.min_area)
    return Looked(predictor, view, test, [*training_notes(run), *notes, *more, *whole.notes])


def bare(error: HealError) -> HealError:
    """The same error without its traceback, whose frames would keep a run in memory."""
    return type(error)(error.what, where=error.where, hint=error.hint)


def _split_of(run: Path, request: Request) -> Dataset:
    """The evaluated split as the run's card wants it."""
    if not run.is_dir():
        raise CheckpointError("no such run folder", where=str(run), hint="give folders made by healmap train")
    path = weights_path(run, request.weights)
    card = read_card(path)
    preprocessing = prepared(card, path)
    domains = from_plain(Spec, card["spec"], where=str(path.with_suffix(".json"))).domains
    return open_dataset(request.table, request.split, data_settings(card, preprocessing), preprocessing, domains=domains)


def _identities(dataset: Dataset) -> Iterator[Identity]:
    return ((item.key, pixels) for item, pixels in zip(dataset.items, dataset.pixel_hashes, strict=True))


def _common_of(dataset: Dataset, common: Sequence[Identity]) -> Dataset:
    place = {image: i for i, image in enumerate(_identities(dataset))}
    return dataset.subset([place[image] for image in common])
