"""A few rows that stand for many: greedy k-centre (Gonzalez 1985) over a stream in bounded memory, or a random sample.

Symbols: X all rows of the stream, k rows to keep, r* the smallest radius within which k centres can cover X.

    greedy:  c_1 = the first row;  c_{i+1} = argmax_x min_{j <= i} |x - c_j|
    bound:   if it leaves a row of S ⊆ X at distance δ, then S holds k + 1 rows pairwise at least δ apart, two of which share
             one of the k best centres of X: δ <= 2 r*. So rows thinned l times lie within 2 l r* of what is kept.

``Coreset`` thins chunk by chunk (round 1) and at the end the union of what the chunks kept (round 2), hence 4 r* (Malkomes et
al., NeurIPS 2015). The bound holds in the space of the random projection, where all distances are taken.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..losses.precision import at_least_float32

Projection = Literal["linear", "sparse", "none"]
AHEAD = 256  # candidates looked at in one pass over the rows; more cost memory, fewer passes
SLAB = 4096  # rows that one matrix product of a pass takes: (AHEAD, SLAB) distances stay in the processor's cache
NOISE = 16  # roundings of |x|² by which |x|² - 2 x·c + |c|² may miss 0 for equal rows
JL_EPS = 0.9  # anomalib: distances kept up to this share


@torch.no_grad()
def k_centre(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Greedy k-centre from the first row on: (the indices of k rows in the order of their choice, the radius they leave).

    One pass serves many centres. Distances to the chosen only shrink, so of the rows that were farthest before the pass one
    is the farthest of all for as long as it still beats what the others had. The choice is that of one pass per centre.

    rows: (n, d), n >= 1. Returns (min(k, n),) int64 and a scalar. Float32 at least, whatever the precision around.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return _k_centre(at_least_float32(rows), k)


def _k_centre(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    rows = rows - rows.mean(0)  # distances stay, rounding gets smaller
    n, k = len(rows), min(k, len(rows))
    norms = rows.square().sum(1)
    found = torch.zeros(1, dtype=torch.int64, device=rows.device)
    distance = torch.full_like(norms, torch.inf)  # squared, to the nearest of the chosen
    _approach(distance, rows, norms, found)
    chosen = [found]
    left = k - 1
    while left:
        farthest, index = distance.topk(min(AHEAD + 1, n))
        limit = float(farthest[-1]) if n > AHEAD else -torch.inf  # no row outside the candidates is farther
        accepted = _greedy_among(rows[index], farthest.cpu(), limit, left)
        found = index[accepted.to(index.device)]
        _approach(distance, rows, norms, found)
        chosen.append(found)
        left -= len(found)
    return torch.cat(chosen), distance.max().clamp(min=0).sqrt()


def _greedy_among(candidates: Tensor, distance: Tensor, limit: float, most: int) -> Tensor:
    """Greedy k-centre over candidates that are ``distance`` away so far, while one of them is at least ``limit`` away."""
    between = torch.cdist(candidates, candidates, compute_mode="donot_use_mm_for_euclid_dist").square().cpu()
    accepted: list[int] = []
    while len(accepted) < most:
        value, j = distance.max(0)
        if accepted and (float(value) < limit or float(value) < 0):
            break
        distance = torch.minimum(distance, between[j])
        distance[j] = -1
        accepted.append(int(j))
    return torch.tensor(accepted)


def _approach(distance: Tensor, rows: Tensor, norms: Tensor, centres: Tensor) -> None:
    """distance <- min(distance, |rows - rows[centres]|²) in place. The centres' own becomes -1: none is chosen twice.

    What rounding leaves of no distance counts as none: equal rows are then equally far, and many are chosen in one pass.
    """
    c, own, noise = rows[centres], norms[centres, None], NOISE * torch.finfo(rows.dtype).eps
    for x, x2, d in zip(rows.split(SLAB), norms.split(SLAB), distance.split(SLAB), strict=True):
        apart = torch.addmm(own, c, x.T, alpha=-2).amin(0) + x2
        torch.minimum(d, apart.where(apart > noise * x2, 0), out=d)
    distance[centres] = -1


def projection(kind: Projection, dimensions: int, wanted: int, rows: int) -> Tensor:
    """A random linear map to few dimensions, (dimensions, d'), that keeps distances on the whole.

    linear: normal weights, d' = ``wanted``. sparse: Li, Hastie, Church (2006), and d' such that distances among ``rows`` rows
    are kept up to 90 % (Johnson-Lindenstrauss), as anomalib. A map to no fewer dimensions is left out: (dimensions, 0).
    It is drawn from a generator of its own, so that every process and every run have the same.
    """
    generator = torch.Generator().manual_seed(0)
    if kind == "sparse":
        wanted = int(4 * math.log(max(rows, 2)) / (JL_EPS**2 / 2 - JL_EPS**3 / 3))
    if kind == "none" or wanted >= dimensions:
        return torch.zeros(dimensions, 0, device="cpu")
    if kind == "linear":
        return torch.randn(dimensions, wanted, generator=generator, device="cpu") / wanted**0.5
    density = dimensions**-0.5
    drawn = torch.rand(dimensions, wanted, generator=generator, device="cpu")
    sign = (drawn < density / 2).float() - (drawn > 1 - density / 2).float()
    return sign / (density * wanted) ** 0.5


class Coreset(nn.Module):
    """At most k rows of a stream of any length, in rounds of greedy k-centre.

    Rows gather in a chunk; a full chunk is thinned to k rows, its coreset, of level 1. There is room for ``slots`` coresets.
    When all are taken, those of the lowest level are thinned together into one of the next level (a single one takes those of
    the level above along), and ``finish`` thins the union of all. The bank lies within 2 ``rounds`` r* of every row:

        chunks                       rounds   bound
        1                            1        2 r*
        up to slots                  2        4 r*
        up to slots (slots + 1) / 2  3        6 r*

    All state lies in buffers of fixed shape, so a fit stopped anywhere goes on bit by bit.

    Args:
        k: rows to keep. dimensions: of a row. chunk: rows that are thinned together. slots: coresets kept, at least 2.
        space: (dimensions, d') random projection for the distances; d' = 0: none.
    """

    space: Tensor
    chunk: Tensor  # (rows, dimensions)
    waiting: Tensor  # () int64, rows of the chunk in use
    kept: Tensor  # (slots, k, dimensions)
    sizes: Tensor  # (slots,) int64, rows in use
    levels: Tensor  # (slots,) int64, how often their rows were thinned; 0: the slot is free

    def __init__(self, k: int, dimensions: int, *, chunk: int, slots: int, space: Tensor) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("space", space)
        self.register_buffer("chunk", torch.zeros(chunk, dimensions))
        self.register_buffer("waiting", torch.zeros((), dtype=torch.int64))
        self.register_buffer("kept", torch.zeros(slots, k, dimensions))
        self.register_buffer("sizes", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("levels", torch.zeros(slots, dtype=torch.int64))

    @property
    def rounds(self) -> int:
        """How often a row will have been thinned when ``finish`` is done, at most."""
        levels = [level for level in self.levels.tolist() if level] + [1] * bool(self.waiting)
        return max(levels, default=0) + (len(levels) > 1)

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """rows: (n, dimensions), the next of the stream."""
        while len(rows):
            start = int(self.waiting)
            part, rows = rows.split([min(len(rows), len(self.chunk) - start), max(0, len(rows) - len(self.chunk) + start)])
            self.chunk[start : start + len(part)] = part
            self.waiting += len(part)
            if int(self.waiting) == len(self.chunk):
                self._close()

    @torch.no_grad()
    def finish(self) -> Tensor:
        """(at most k, dimensions): the coreset of everything."""
        if self.waiting:
            self._close()
        taken = self.levels > 0
        if int(taken.sum()) > 1:
            self._merge(taken, self.rounds)
        slot = int(self.levels.argmax())
        return self.kept[slot, : int(self.sizes[slot])]

    def _close(self) -> None:
        """Round 1: the chunk becomes a coreset."""
        if bool(self.levels.all()):
            lowest, *above = self.levels.unique().tolist()
            if int((self.levels == lowest).sum()) == 1:
                lowest = above[0]
            self._merge(self.levels <= lowest, lowest + 1)
        rows = self.chunk[: int(self.waiting)]
        self._put(int(self.levels.argmin()), rows[self._centres(self._projected(rows))], 1)
        self.waiting.zero_()

    def _merge(self, which: Tensor, level: int) -> None:
        """The coresets ``which`` (slots,) bool become one, without a copy of them all."""
        slots = which.nonzero()[:, 0].tolist()
        sizes = [int(self.sizes[slot]) for slot in slots]
        place = torch.cat([torch.arange(n, device=which.device) + slot * self.k for slot, n in zip(slots, sizes, strict=True)])
        near = torch.cat([self._projected(self.kept[slot, :n]) for slot, n in zip(slots, sizes, strict=True)])
        rows = self.kept.flatten(0, 1)[place[self._centres(near)]]
        self.levels[which], self.sizes[which] = 0, 0
        self._put(slots[0], rows, level)

    def _put(self, slot: int, rows: Tensor, level: int) -> None:
        self.kept[slot, : len(rows)], self.sizes[slot], self.levels[slot] = rows, len(rows), level

    def _projected(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ self.space if self.space.shape[1] else rows

    def _centres(self, rows: Tensor) -> Tensor:
        if len(rows) <= self.k:
            return torch.arange(len(rows), device=rows.device)
        return k_centre(rows, self.k)[0]


class Reservoir(nn.Module):
    """k rows of a stream of any length, each row as likely as any other: those with the smallest of random keys.

    The last column of a row is its key (see ``with_keys``). What is kept does not depend on the order of the rows.
    """

    rows: Tensor  # (k, dimensions + 1)

    def __init__(self, k: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(k, dimensions + 1))
        self.rows[:, -1] = 1  # above every key: nobody's row

    @torch.no_grad()
    def with_keys(self, rows: Tensor) -> Tensor:
        """(n, dimensions) -> those with a chance to be kept and their keys, drawn from torch's generator, in [0, 1)."""
        keys = torch.rand(len(rows), 1, device=rows.device)
        return torch.cat([rows, keys], 1)[keys[:, 0] < self.rows[:, -1].max()]

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """rows: (n, dimensions + 1) with their keys."""
        k, keys = len(self.rows), torch.cat([self.rows[:, -1], rows[:, -1]])
        keep = torch.zeros_like(keys, dtype=torch.bool).index_fill_(0, keys.topk(k, largest=False).indices, True)
        self.rows[~keep[:k]] = rows[keep[k:]]

    @torch.no_grad()
    def finish(self) -> Tensor:
        """(at most k, dimensions)."""
        return self.rows[self.rows[:, -1] < 1, :-1]
