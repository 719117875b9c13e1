"""Exact nearest neighbours by matrix products, in blocks: memory does not grow with queries times rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..losses.precision import at_least_float32

BLOCK = (512, 2048)  # queries and rows of one matrix product, 4 MB: its result stays in the processor's cache
GROUP = 16  # values that share a minimum in the search for the smallest


class Nearest(NamedTuple):
    distance: Tensor  # (Q, k) Euclidean, ascending
    entry: Tensor  # (Q, k) int64, rows of the bank


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, k: int = 1, *, block: tuple[int, int] = BLOCK) -> Nearest:
    """The k rows of the bank nearest to each query.

        |q - m|² = |q|² - 2 q·m + |m|²

    ranks them, without |q|², which is the same for all, and with the mean of the bank as origin, for features far from zero
    would lose their differences in the squares. The distances of the k that win are then taken from the differences
    themselves, so that a query that lies in the bank is at 0. Float32 at least, whatever the precision around.

    queries: (Q, D). bank: (K, D), K >= k. block: changes time and memory, not the result.
    """
    with torch.autocast(queries.device.type, enabled=False):
        bank = at_least_float32(bank)
        origin = bank.mean(0)
        near = bank - origin
        norms = near.square().sum(1)
        found = []
        for q in queries.to(bank.dtype).split(block[0]):
            entry = _ranks(q - origin, near, norms, k, block[1])
            distance, order = (q[:, None] - bank[entry]).square().sum(2).sqrt().sort(1)  # (queries, k)
            found.append(Nearest(distance, entry.gather(1, order)))
    return Nearest(torch.cat([part.distance for part in found]), torch.cat([part.entry for part in found]))


def _ranks(q: Tensor, bank: Tensor, norms: Tensor, k: int, width: int) -> Tensor:
    """The k rows of the bank nearest to each query, block by block: (Q, k) int64."""
    value, entry = q.new_empty(len(q), 0), torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
    for start in range(0, len(bank), width):
        part = slice(start, start + width)
        found, where = _smallest(torch.addmm(norms[part], q, bank[part].T, alpha=-2), k)
        value, order = _smallest(torch.cat([value, found], 1), k)
        entry = torch.cat([entry, where + start], 1).gather(1, order)
    return entry


def _smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(Q, n) -> the min(k, n) smallest of each row and their places.

    In two steps, since minima alone are found much faster than minima with their places: the k smallest lie in the k
    groups whose minima are smallest.
    """
    n, k = values.shape[1], min(k, values.shape[1])
    if n % GROUP or n // GROUP < k:
        return _ranked(values, k)
    groups = values.unflatten(1, (GROUP, n // GROUP))  # a group: every (n / GROUP)-th column
    column = _ranked(groups.amin(1), k)[1]  # (Q, k)
    members = groups.gather(2, column[:, None].expand(-1, GROUP, -1)).flatten(1)  # (Q, GROUP * k)
    found, place = _ranked(members, k)
    return found, place // k * (n // GROUP) + column.gather(1, place % k)


def _ranked(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if k == 1:
        return values.min(1, keepdim=True)
    found = values.topk(k, dim=1, largest=False)
    return found.values, found.indices
