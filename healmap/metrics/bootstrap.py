"""95 % intervals by resampling patients, and the form in which a figure is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_DEFINED = 0.5  # an interval needs this share of resamples in which the figure exists


def resamples(groups: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each of ``groups`` patients is drawn in each of ``count`` resamples with replacement: (count, groups)."""
    if groups < 1 or count < 1:
        return np.zeros((max(count, 0), max(groups, 0)), dtype=np.int64)
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=count)


def interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of bootstrap figures; NaN ones (a class not drawn) are left out, too many of them give None."""
    values = np.asarray(samples, dtype=float).ravel()
    finite = values[np.isfinite(values)]
    if finite.size < 20 or finite.size < LEAST_DEFINED * values.size:
        return None
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Figure:
    """A number with its interval. ``n``: images it rests on. ``reason``: why ``value`` is None.

    samples: the bootstrap figures, for differences between methods on the same resamples; not written.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    n: int = 0
    reason: str = ""
    samples: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"value": self.value, "ci95": list(self.ci95) if self.ci95 else None, "n": self.n}
        return plain | ({"reason": self.reason} if self.value is None else {})


def figure(value: float, samples: ArrayLike | None, n: int, *, patients: int, reason: str = "not defined") -> Figure:
    """A figure from its value and its bootstrap figures. No interval is given for a single patient."""
    if not math.isfinite(value):
        return Figure(None, None, n, reason)
    drawn = None if samples is None else np.asarray(samples, dtype=float).ravel()
    ci = interval(drawn) if drawn is not None and patients > 1 else None
    return Figure(float(value), ci, n, samples=drawn)


def difference(a: Figure, b: Figure) -> Figure:
    """a minus b on the same resamples of the same patients."""
    if a.value is None or b.value is None:
        return Figure(None, None, min(a.n, b.n), "one of the two is not defined")
    samples = None
    if a.samples is not None and b.samples is not None and a.samples.shape == b.samples.shape:
        samples = a.samples - b.samples
    ci = interval(samples) if samples is not None and a.ci95 else None
    return Figure(a.value - b.value, ci, min(a.n, b.n), samples=samples)
