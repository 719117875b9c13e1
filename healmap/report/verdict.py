"""The sentence that a figure deserves: whether a method does better than what needs no learning of anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .page import at, interval, number

Kind = Literal["better", "unclear", "worse"]
COMPARED = {"image.auroc": "image AUROC", "pixel.ap": "pixel AP", "pixel.dice_best": "Dice at the best threshold"}
SAYS = {
    ("better", True): "beats", ("unclear", False): "is not clearly better than", ("worse", True): "is worse than",
    ("worse", False): "is below, though not clearly,",
}  # fmt: skip
BASELINES = {"threshold": "brightness alone", "thumbnail": "a logistic regression on thumbnails"}


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    text: str


def verdicts(metrics: Mapping[str, Any]) -> list[Verdict]:
    """One per figure and baseline that both have; empty when no baseline was run."""
    found = []
    for baseline, path, margin in margins(metrics):
        kind, ends = kind_of(margin), interval(margin)
        mine, other = at(metrics, path), at(metrics, f"baseline.{baseline}.{path}")
        assert mine is not None
        assert other is not None
        text = f"{COMPARED[path]} {number(mine['value'])} {SAYS[kind, clear(margin)]} {BASELINES[baseline]} "
        text += f"({number(other['value'])}; difference {margin['value']:+.3f}"
        found.append(Verdict(kind, text + (f", 95 % {ends})" if ends else ", no interval)")))
    return found


def margins(metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Baseline, figure and their difference, wherever method and baseline both have the figure."""
    every = [(kind, path, at(metrics, f"margin.{kind}.{path}")) for kind in BASELINES for path in COMPARED]
    return [(kind, path, margin) for kind, path, margin in every if margin is not None and margin.get("value") is not None]


def kind_of(margin: Mapping[str, Any]) -> Kind:
    """A figure below the baseline's loses, clearly or not; above it, it is better if the paired difference is clear."""
    if margin["value"] < 0:
        return "worse"
    return "better" if clear(margin) else "unclear"


def clear(margin: Mapping[str, Any]) -> bool:
    """Whether the interval of the paired difference lies on its side of 0; a difference without interval proves nothing."""
    ends = margin.get("ci95")
    if not ends or None in ends:
        return False
    return bool(ends[1] < 0 if margin["value"] < 0 else ends[0] > 0)


def summary(found: list[Verdict]) -> Verdict | None:
    """The plain words at the head of the page."""
    if not found:
        return None
    if any(v.kind == "worse" for v in found):
        return Verdict(
            "worse",
            "On these images the method loses to a trivial baseline. The figures below do not show that it finds disease.",
        )
    if any(v.kind == "unclear" for v in found):
        return Verdict("unclear", "On these images the method is not clearly better than a trivial baseline in every respect.")
    return Verdict("better", "On these images the method beats both trivial baselines in every compared figure.")
