"""The same patient or the same picture in two splits: what makes a method look better than it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from .dataset import Dataset
from .faults import SHOWN


@dataclass(frozen=True)
class Member:
    """One image as the leak check sees it. patient: "" if unknown. pixels: hash of the native pixels, "" if constant."""

    split: str
    key: str
    patient: str
    pixels: str


@dataclass(frozen=True)
class Leak:
    """What two or more splits share. members: one image of each split."""

    kind: Literal["patient", "pixels"]
    what: str
    members: tuple[Member, ...]

    def __str__(self) -> str:
        where = ", ".join(f"{m.split} ({m.key})" for m in self.members)
        return f"patient {self.what} is in {where}" if self.kind == "patient" else f"the same pixels are in {where}"


def find_leaks(members: Iterable[Member]) -> list[Leak]:
    """Every patient and every picture that stands in more than one split; images of no split are passed over.

    Pictures are compared by their values at their own size: another name, format, compression or byte order hides nothing.
    """
    patients: dict[str, dict[str, Member]] = {}
    pictures: dict[str, dict[str, Member]] = {}
    for m in members:
        if not m.split:
            continue
        for seen, name in ((patients, m.patient), (pictures, m.pixels)):
            if name:
                seen.setdefault(name, {}).setdefault(m.split, m)
    leaks = [Leak("patient", name, tuple(of.values())) for name, of in patients.items() if len(of) > 1]
    return leaks + [Leak("pixels", name[:12], tuple(of.values())) for name, of in pictures.items() if len(of) > 1]


def members_of(dataset: Dataset, split: str = "") -> list[Member]:
    """The dataset's images; ``split`` overrides what the table says, for data that serve as one whatever their table says."""
    return [
        Member(split or i.split, i.key, i.patient_id if i.patient_id != i.row.path else "", pixels)
        for i, pixels in zip(dataset.items, dataset.pixel_hashes, strict=True)
    ]


def refuse_leaks(datasets: Mapping[str, Dataset] | Sequence[Dataset], allow: bool) -> list[str]:
    """Nothing shared: []. Otherwise, with ``allow``, the sentences that manifest and report must carry.

    datasets: by the split that they serve as; a sequence is taken by each dataset's own split.

    Raises:
        UsageError: something is shared and ``allow`` is False: the first leaks and their number.
    """
    named = datasets.items() if isinstance(datasets, Mapping) else [(d.split or "", d) for d in datasets]
    leaks = find_leaks(m for name, dataset in named for m in members_of(dataset, name))
    if not leaks:
        return []
    shown = "; ".join(str(leak) for leak in leaks[:SHOWN]) + (f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else "")
    numbers = {word: sum(x.kind == kind for x in leaks) for word, kind in (("patients", "patient"), ("pictures", "pixels"))}
    counts = [f"{n} {word}" for word, n in numbers.items() if n]
    if not allow:
        hint = "keep a patient's images in one split ('healmap data split'), or accept it with data.allow_leak=true"
        raise UsageError(f"splits share {' and '.join(counts)}: {shown}", hint=hint)
    return [f"leak allowed by the user: splits share {' and '.join(counts)}: {shown}"]
