"""Thresholds and their origin, stored beside the weights they belong to and never inside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import from_plain, to_plain
from ..errors import CheckpointError, ConfigError
from ..io.atomic import write_json

FORMAT, VERSION = "healmap-thresholds", 1


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """value: at or above it is diseased; None: none was found. how: the rule in words. n: what it was found on, by name."""

    value: float | None = None
    how: str = ""
    n: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """image: on scores. pixel: on maps at native size. scale: the map value at the top of the colour scale of every picture.

    sweep: map values, descending, at which a FROC curve is looked at. weights_sha256: the weights that all this belongs to.
    """

    image: Threshold = field(default_factory=Threshold)
    pixel: Threshold = field(default_factory=Threshold)
    scale: Threshold = field(default_factory=lambda: Threshold(value=0.25, how="default: no validation data were looked at"))
    sweep: tuple[float, ...] = ()
    weights: str = "best"
    weights_sha256: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def top(self) -> float:
        return self.scale.value or 0.25


def thresholds_path(run: Path, weights: str = "best") -> Path:
    return run / "weights" / ("thresholds.json" if weights == "best" else f"thresholds-{weights}.json")


def save_thresholds(thresholds: Thresholds, run: Path) -> Path:
    path = thresholds_path(run, thresholds.weights)
    return write_json(path, {"format": FORMAT, "version": VERSION, **to_plain(thresholds)})


def load_thresholds(run: Path, weights: str, weights_sha256: str) -> Thresholds | None:
    """Those of exactly these weights; None when there are none, or they belong to weights that were replaced since.

    Raises:
        CheckpointError: the file is damaged or foreign.
    """
    path = thresholds_path(run, weights)
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        plain = None
    if not isinstance(plain, Mapping) or plain.get("format") != FORMAT or plain.get("version") != VERSION:
        raise CheckpointError("not a thresholds file of this version", where=str(path), hint="delete it and calibrate again")
    try:
        found = from_plain(Thresholds, {k: v for k, v in plain.items() if k not in ("format", "version")}, where=str(path))
    except ConfigError as error:
        raise CheckpointError(
            f"the thresholds are damaged: {error}", where=str(path), hint="delete them, calibrate again"
        ) from None
    return found if found.weights_sha256 == weights_sha256 else None
