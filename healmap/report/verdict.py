"""The sentence that a figure deserves: whether a method does better than what needs no learning of anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .page import at, interval, number

Kind = Literal["better", "unclear", "worse"]
COMPARED = {"image.auroc": "image AUROC", "pixel.ap": "pixel AP", "pixel.dice_best": "Dice at the best threshold"}
BASELINES = {"threshold": "brightness alone", "thumbnail": "a logistic regression on thumbnails"}


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    text: str


def verdicts(metrics: Mapping[str, Any]) -> list[Verdict]:
    """One per figure and baseline that both have; empty when no baseline was run."""
    found = []
    for baseline, words in BASELINES.items():
        for path, title in COMPARED.items():
            margin = at(metrics, f"margin.{baseline}.{path}")
            if margin is None or margin.get("value") is None:
                continue
            kind = kind_of(margin)
            mine, other = at(metrics, path), at(metrics, f"baseline.{baseline}.{path}")
            assert mine is not None
            assert other is not None
            says = {"better": "beats", "unclear": "is not clearly better than", "worse": "is worse than"}[kind]
            ends = interval(margin)
            text = (
                f"{title} {number(mine['value'])} {says} {words} ({number(other['value'])}; difference {margin['value']:+.3f}"
            )
            found.append(Verdict(kind, text + (f", 95 % {ends})" if ends else ", no interval)")))
    return found


def kind_of(margin: Mapping[str, Any]) -> Kind:
    """By the interval of the paired difference; a difference without interval proves nothing unless it is negative."""
    ends = margin.get("ci95")
    if not ends or None in ends:
        return "worse" if margin["value"] < 0 else "unclear"
    return "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "unclear"


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
