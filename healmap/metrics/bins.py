"""Counts of positive and negative values per threshold and group: what pooled ROC, AP and Dice need, and nothing more.

A pixel figure over a test set would need every pixel at once. Here each value is counted instead under the upper bits of
its float32 pattern, which for non-negative numbers keeps order: 10 bits of mantissa, a relative width of 0.05 to 0.1 % per
bin. A bin's lower edge is a threshold whose counts are exact. Memory depends on the number of groups and bins, never on
the number of pixels. Groups are patients, so a bootstrap over patients is a weighted sum of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

SHIFT = 13  # mantissa bits of float32 that are dropped: 23 - 13 = 10 remain
FLOOR = np.float32(2.0**-24)  # smaller values share the bin of zero
_CHUNK = 8_000_000  # numbers held at once while resampling

Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # keys, positive, negative, one image or group


def bin_keys(values: ArrayLike) -> NDArray[np.int64]:
    """Order-preserving integer bins of non-negative numbers, any shape. Raises ValueError for negative numbers or NaN."""
    v = np.ascontiguousarray(values, dtype=np.float32)
    if v.size and not (v.min() >= 0):  # also false for NaN
        raise ValueError("values of an anomaly map must be non-negative numbers")
    v = np.where(v < FLOOR, np.float32(0), np.minimum(v, np.finfo(np.float32).max))
    return (v.view(np.int32) >> SHIFT).astype(np.int64)


def lower_edges(keys: ArrayLike) -> NDArray[np.float64]:
    """The smallest value of each bin. ``value >= edge`` splits pixels exactly as the bins do."""
    return (np.asarray(keys, dtype=np.int32) << SHIFT).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Bins:
    """values (K,) ascending; positive and negative (P, K) counts per group. Threshold k means ``value >= values[k]``."""

    values: NDArray[np.float64]
    positive: sparse.csr_array
    negative: sparse.csr_array
    groups: tuple[str, ...]

    def pooled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts over all groups: positive (K,), negative (K,)."""
        positive, negative = (np.asarray(counts.sum(axis=0), dtype=float).ravel() for counts in (self.positive, self.negative))
        return positive, negative

    def weighted(self, weights: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Counts of resamples: for chunks of ``weights`` (B, P), positive (b, K) and negative (b, K)."""
        step = max(1, _CHUNK // max(1, len(self.values)))
        for start in range(0, len(weights), step):
            w = sparse.csr_array(weights[start : start + step].astype(np.float64))
            yield (w @ self.positive).toarray(), (w @ self.negative).toarray()


class PixelTally:
    """Collects :class:`Bins` image by image. Values are non-negative; ``truth`` has their shape."""

    def __init__(self) -> None:
        self._rows: dict[str, Counts] = {}

    def add(self, group: str, values: ArrayLike, truth: ArrayLike) -> Bins:
        """Counts one image under its group; returns the image's own bins (for per-slice figures)."""
        row = _count(bin_keys(values).ravel(), np.asarray(truth, dtype=bool).ravel())
        self._rows[group] = _merge(self._rows[group], row) if group in self._rows else row
        return _table([group], [row])

    def bins(self) -> Bins:
        return _table(list(self._rows), list(self._rows.values()))


def exact_bins(groups: Sequence[str], values: ArrayLike, truth: ArrayLike) -> Bins:
    """Bins with one threshold per distinct value: for image scores, where nothing needs rounding. All arguments (n,)."""
    v, y = np.asarray(values, dtype=float).ravel(), np.asarray(truth, dtype=bool).ravel()
    names = list(dict.fromkeys(groups))
    place = {name: i for i, name in enumerate(names)}
    row = np.array([place[g] for g in groups], dtype=np.int64)
    distinct, column = np.unique(v, return_inverse=True)
    shape = (len(names), len(distinct))

    def matrix(chosen: NDArray[np.bool_]) -> sparse.csr_array:
        return sparse.coo_array((np.ones(int(chosen.sum())), (row[chosen], column[chosen])), shape=shape).tocsr()

    return Bins(distinct, matrix(y), matrix(~y), tuple(names))


def _count(keys: NDArray[np.int64], truth: NDArray[np.bool_]) -> Counts:
    if not keys.size:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    low = int(keys.min())
    every = np.bincount(keys - low)
    positive = np.bincount(keys[truth] - low, minlength=len(every))
    used = np.flatnonzero(every)
    return used + low, positive[used], (every - positive)[used]


def _merge(a: Counts, b: Counts) -> Counts:
    keys, where = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
    both = [np.zeros(len(keys), dtype=np.int64) for _ in range(2)]
    for part, total in enumerate(both, start=1):
        np.add.at(total, where[: len(a[0])], a[part])
        np.add.at(total, where[len(a[0]) :], b[part])
    return keys, both[0], both[1]


def _table(groups: list[str], rows: list[Counts]) -> Bins:
    keys = np.unique(np.concatenate([r[0] for r in rows])) if rows else np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(r[0]) for r in rows])]).astype(np.int64)
    columns = np.searchsorted(keys, np.concatenate([r[0] for r in rows])) if rows else np.zeros(0, dtype=np.int64)

    def matrix(part: int) -> sparse.csr_array:
        data = np.concatenate([r[part] for r in rows]).astype(np.float64) if rows else np.zeros(0)
        return sparse.csr_array((data, columns, starts), shape=(len(rows), len(keys)))

    return Bins(lower_edges(keys), matrix(1), matrix(2), tuple(groups))
