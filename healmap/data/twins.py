"""Healthy twins: the image that a made-up lesion was put into. The table's column ``twin`` names its file.

A twin is seen by methods that learn from pairs and by evaluation, never by another method. It is brought to the network as its
image is: same place, same intensity range.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .case import prepare_plane, read_case

if TYPE_CHECKING:
    from .dataset import Dataset

KEPT = 512  # twins in memory; the rest are read again


def twin_image(dataset: Dataset, index: int) -> NDArray[np.float32] | None:
    """(C, S, S) in [-1, 1] on the working grid. None where the table names no twin, or the image is a slice of a volume.

    Raises:
        UnreadableError and its kin: the twin cannot be read.
    """
    item = dataset.items[index]
    name = item.row["twin"]
    if not name or item.slice is not None:
        return None
    preprocessing, stats = dataset.preprocessing, dataset.stats(index)
    plane = prepare_plane(read_case(dataset.table.root / name), 0, None, stats, preprocessing)
    return preprocessing.normalise(plane, stats)


@dataclass(eq=False)
class Twins:
    """The twins of a dataset's images; an image without one is its own."""

    dataset: Dataset
    _recent: OrderedDict[int, NDArray[np.float32]] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, C, S, S) in [-1, 1]."""
        return np.stack([self._one(int(i)) for i in indices])

    def _one(self, index: int) -> NDArray[np.float32]:
        with self._lock:
            found = self._recent.get(index)
            if found is not None:
                self._recent.move_to_end(index)
                return found
        own = twin_image(self.dataset, index)
        found = self.dataset.image(index) if own is None else own
        with self._lock:
            self._recent[index] = found
            while len(self._recent) > KEPT:
                self._recent.popitem(last=False)
        return found
