"""Batches for a method, by what it needs.

Batch k is a function of (seed, k) and the dataset alone: no state is carried, so that a run resumed at step k sees the very
images that it would have seen, however many batches threads had prepared ahead, and however many processes share the work.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..types import DISEASED, HEALTHY, UNKNOWN, Batch, Needs
from .dataset import Dataset
from .twins import Twins

if TYPE_CHECKING:
    from torch import Tensor

AHEAD = 3  # batches prepared ahead per worker
# Streams of random numbers that must not repeat one another.
_ORDER_A, _ORDER_B, _FLIP_A, _FLIP_B, _SHARE = range(5)
Indices = NDArray[np.int64]


class Loader:
    """Endless or one-pass batches of CPU tensors.

    Args:
        dataset: the training split.
        needs: what the method may see. HEALTHY: healthy images. LABELLED: images with known labels, shuffled together.
            DISEASED_AND_HEALTHY: set A diseased, set B healthy. MIXED_AND_HEALTHY: set A the unknown images, set B the healthy
            ones; without unknown images the labels are hidden: ``healthy_share`` of the patients who have healthy images give
            these to set B, the others' healthy images and all diseased ones form set A. SEGMENTED: as DISEASED_AND_HEALTHY,
            with masks. PAIRED: diseased images that have a twin, with it, and healthy ones with themselves. Where
            ``data.domains`` names two domains, they take the places of healthy (the first, set B) and diseased (the second,
            set A).
        batch_size: of the whole batch, over all processes; must be divisible by ``world``.
        seed: of order, flips and share.
        flip: mirror each image left to right with probability 1/2.
        rank, world: this process's part of every batch.
        workers: threads that prepare batches ahead; 0: none.

    Raises:
        UsageError: the dataset lacks what ``needs`` wants.
    """

    def __init__(
        self,
        dataset: Dataset,
        needs: Needs,
        *,
        batch_size: int,
        seed: int,
        flip: bool = False,
        healthy_share: float = 0.5,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            text = f"batch size {batch_size} cannot be divided among {world} processes"
            raise UsageError(text, hint=f"use a multiple of {world}")
        self.dataset, self.needs, self.batch_size, self.seed, self.flip = dataset, needs, batch_size, seed, flip
        self.rank, self.world, self.workers = rank, world, workers
        self.a, self.b, self._text = pools(dataset, needs, seed, healthy_share)
        self._labels = dataset.labels() if needs is Needs.LABELLED else None
        self._masks = needs is Needs.SEGMENTED
        self._twins = Twins(dataset) if needs is Needs.PAIRED else None
        self._orders: dict[tuple[int, int], Indices] = {}

    def __len__(self) -> int:
        """Batches in one pass over set A; the last may be smaller."""
        return -(-len(self.a) // self.batch_size)

    def describe(self) -> str:
        """Which images serve as what, for the manifest."""
        return self._text

    def batch(self, k: int) -> Batch:
        """This process's part of batch k of the endless stream."""
        return self._make(k, np.arange(k * self.batch_size, (k + 1) * self.batch_size))

    def forever(self, start: int = 0) -> Iterator[Batch]:
        """Batches start, start + 1, … without end. Each pass over a set is a new permutation; batches run across its ends."""
        return self._stream(start, None)

    def one_pass(self, start: int = 0) -> Iterator[Batch]:
        """Every image of set A once, in the order of the first pass."""
        return self._stream(start, len(self))

    def _one_of_pass(self, k: int) -> Batch:
        return self._make(k, np.arange(k * self.batch_size, min((k + 1) * self.batch_size, len(self.a))))

    def _stream(self, start: int, end: int | None) -> Iterator[Batch]:
        make = self.batch if end is None else self._one_of_pass
        if not self.workers:
            k = start
            while end is None or k < end:
                yield make(k)
                k += 1
            return
        pool, waiting, k = ThreadPoolExecutor(self.workers, "healmap-loader"), deque[Future[Batch]](), start
        try:
            while True:
                while len(waiting) < AHEAD * self.workers and (end is None or k < end):
                    waiting.append(pool.submit(make, k))
                    k += 1
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, k: int, positions: Indices) -> Batch:
        import torch

        part = np.array_split(np.arange(len(positions)), self.world)[self.rank]
        chosen = self._pick(_ORDER_A, self.a, positions[part])
        image = self._flipped(self.dataset.images(chosen), k, _FLIP_A, part)
        label = healthy = mask = healthy_mask = None
        if self._labels is not None:
            label = torch.from_numpy(self._labels[chosen])
        if self._twins is not None:
            healthy = self._flipped(self._twins.images(chosen), k, _FLIP_A, part)
        if self._masks:
            mask = self._flipped(self._label_maps(chosen), k, _FLIP_A, part)
        if len(self.b):
            other = self._pick(_ORDER_B, self.b, positions[part])
            healthy = self._flipped(self.dataset.images(other), k, _FLIP_B, part)
            if self._masks:
                healthy_mask = self._flipped(self._label_maps(other), k, _FLIP_B, part)
        return Batch(image, label, healthy, mask, healthy_mask)

    def _label_maps(self, chosen: Indices) -> NDArray[np.int64]:
        """(N, S, S), 1 where marked."""
        return np.stack([np.asarray(self.dataset.mask(int(i)), np.int64) for i in chosen])

    def _pick(self, stream: int, pool: Indices, positions: Indices) -> Indices:
        """Members of the pool at these positions of its endless shuffled stream."""
        rounds, places = np.divmod(positions, len(pool))
        out = np.empty(len(positions), np.int64)
        for number in np.unique(rounds):
            here = rounds == number
            out[here] = pool[self._order(stream, int(number), len(pool))[places[here]]]
        return out

    def _order(self, stream: int, number: int, count: int) -> Indices:
        order = self._orders.get((stream, number))
        if order is None:
            order = np.random.default_rng([self.seed, stream, number]).permutation(count)
            # Batches are made in order, so that a few rounds suffice. Assigned whole: threads may look at it meanwhile.
            kept = {key: value for key, value in list(self._orders.items()) if abs(key[1] - number) <= 2}
            self._orders = {**kept, (stream, number): order}
        return order

    def _flipped(self, images: NDArray[Any], k: int, stream: int, part: Indices) -> Tensor:
        """(N, ..., W) as a tensor, some mirrored left to right, by place in the batch: what belongs together turns together."""
        import torch

        if self.flip:
            turned = np.random.default_rng([self.seed, stream, k]).random(self.batch_size)[part] < 0.5
            images[turned] = images[turned][..., ::-1]
        return torch.from_numpy(images)


def pools(dataset: Dataset, needs: Needs, seed: int, healthy_share: float) -> tuple[Indices, Indices, str]:
    """(set A, set B, in words): indices of the images that serve as what; ``Loader`` says how they are chosen."""
    items = dataset.items
    label = np.array([i.label for i in items])
    if dataset.config.domains and needs in (Needs.DISEASED_AND_HEALTHY, Needs.SEGMENTED):
        return _two_domains(dataset, needs)
    sets = {name: np.flatnonzero(label == name) for name in (HEALTHY, DISEASED, UNKNOWN)}
    healthy, diseased, unknown = sets.values()
    none = np.zeros(0, np.int64)

    def want(name: str) -> None:
        if not len(sets[name]):
            raise UsageError(
                f"no {name} image, but the method learns from {needs.value}",
                where=_counted(dataset),
                hint=f"label some images '{name}'",
            )

    if needs is Needs.HEALTHY:
        want(HEALTHY)
        return healthy, none, f"{len(healthy)} healthy images{_unused(diseased=len(diseased), unknown=len(unknown))}"
    if needs is Needs.PAIRED:
        return _paired(dataset, healthy, diseased)
    if needs in (Needs.DISEASED_AND_HEALTHY, Needs.SEGMENTED):
        want(DISEASED)
        want(HEALTHY)
        if needs is Needs.SEGMENTED:
            _want_masks(dataset, diseased)
        text = f"set A: {len(diseased)} diseased, set B: {len(healthy)} healthy{_unused(unknown=len(unknown))}"
        return diseased, healthy, text
    if needs is Needs.LABELLED:
        return _labelled(dataset)
    want(HEALTHY)
    if len(unknown):
        text = f"set A: {len(unknown)} unknown, set B: {len(healthy)} healthy{_unused(diseased=len(diseased))}"
        return unknown, healthy, text
    want(DISEASED)
    patients = sorted({items[i].patient_id for i in healthy})
    count = min(max(round(healthy_share * len(patients)), 1), len(patients))
    known = {patients[i] for i in np.random.default_rng([seed, _SHARE]).permutation(len(patients))[:count]}
    in_b = np.array([items[i].patient_id in known for i in healthy])
    a = np.sort(np.concatenate([diseased, healthy[~in_b]]))
    text = (
        f"no unknown images: labels hidden. Set B: the {in_b.sum()} healthy images of {count} of the {len(patients)} patients "
        f"with healthy images (share {healthy_share:g}, seed {seed}); set A: {len(a)} images, {len(diseased)} of them diseased"
    )
    return a, healthy[in_b], text


def _two_domains(dataset: Dataset, needs: Needs) -> tuple[Indices, Indices, str]:
    """Set A: the second of ``data.domains``; set B: the first."""
    names, labels = dataset.spec.domains.names, dataset.labels()
    if len(names) != 2:
        hint = "name two in data.domains"
        raise UsageError(f"{len(names)} domains, but the method learns from two sets", where=", ".join(names), hint=hint)
    b, a = (np.flatnonzero(labels == k) for k in (0, 1))
    for name, members in zip(names, (b, a), strict=True):
        if not len(members):
            split = f"split {dataset.split}" if dataset.split else dataset.table.name
            raise UsageError(f"no image of domain '{name}'", where=split, hint="both domains need training images")
        if needs is Needs.SEGMENTED:
            _want_masks(dataset, members)
    return a, b, f"set A: {len(a)} {names[1]}, set B: {len(b)} {names[0]}{_unused(other=len(dataset) - len(a) - len(b))}"


def _want_masks(dataset: Dataset, members: Indices) -> None:
    bare = [int(i) for i in members if dataset.mask(int(i)) is None]
    if bare:
        raise UsageError(
            f"{len(bare)} images have no mask, but the method learns from {Needs.SEGMENTED.value}",
            where=dataset.items[bare[0]].key,
            hint="fill the column 'mask', or leave them out with data.select",
        )


def _paired(dataset: Dataset, healthy: Indices, diseased: Indices) -> tuple[Indices, Indices, str]:
    have = np.array([bool(dataset.items[i].row["twin"]) and dataset.items[i].slice is None for i in diseased], bool)
    if not have.any():
        raise UsageError(
            f"no diseased image has a twin, but the method learns from {Needs.PAIRED.value}",
            where=_counted(dataset),
            hint="fill the column 'twin', or make data with pairs: healmap data make ellipses OUT --pairs",
        )
    pool = np.sort(np.concatenate([diseased[have], healthy]))
    unused = _unused(diseased=int((~have).sum()))
    text = f"{int(have.sum())} diseased images with their twins, {len(healthy)} healthy images{unused}"
    return pool, np.zeros(0, np.int64), text


def _labelled(dataset: Dataset) -> tuple[Indices, Indices, str]:
    labels, domains = dataset.labels(), dataset.spec.domains
    if not domains.exclusive:
        known = np.arange(len(dataset))
        have = [name for k, name in enumerate(domains.names) if labels[:, k].any()]
        combinations = len(np.unique(labels, axis=0))
    else:
        known = np.flatnonzero(labels >= 0)
        have = [domains.names[k] for k in np.unique(labels[known])]
        combinations = len(have)
    if combinations < 2:
        text = f"images of one domain only, but the method learns from {Needs.LABELLED.value}"
        raise UsageError(text, where=_counted(dataset), hint=f"it needs at least two of {', '.join(domains.names)}")
    text = f"{len(known)} labelled images of {', '.join(have)}{_unused(unknown=len(dataset) - len(known))}"
    return known, np.zeros(0, np.int64), text


def _unused(**counts: int) -> str:
    parts = [f"{n} {name}" for name, n in counts.items() if n]
    return f"; not used: {', '.join(parts)}" if parts else ""


def _counted(dataset: Dataset) -> str:
    counts = Counter(i.label for i in dataset.items)
    split = f"split {dataset.split}: " if dataset.split else ""
    return split + (", ".join(f"{counts[n]} {n}" for n in (HEALTHY, DISEASED, UNKNOWN)) or "no image")
