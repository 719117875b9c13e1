"""What data-parallel processes tell each other beyond gradients: statistics of the images that each has seen.

A checkpoint holds the first process's state, so every process has to keep the same. What layers keep is shared by the training
loop after every step (:func:`share_statistics`); what a method collects it merges itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from ..errors import DataError

# Of batch norms; of spectral norms, where it follows from the weights but for rounding. A method's own collections have others.
STATISTICS = ("running_mean", "running_var", "u")


def several() -> bool:
    """Whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized()


@torch.no_grad()
def share_statistics(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Those of the tensors, by name, that are a layer's statistics become the mean of all processes', in place."""
    if not several():
        return
    own = [tensor for name, tensor in tensors if name.rpartition(".")[2] in STATISTICS]
    if not own:
        return
    flat = torch.cat([tensor.flatten() for tensor in own])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
        tensor.copy_(part.view_as(tensor))


def from_all_processes(rows: Tensor) -> Tensor:
    """The rows (n, ...) of every process, in the order of their ranks, for each of them: (Σ n, ...). n may differ."""
    if not several():
        return rows
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, own)
    padded = rows.new_zeros(max(int(n) for n in counts), *rows.shape[1:])  # it gathers equal shapes only
    padded[: len(rows)] = rows
    every = [torch.zeros_like(padded) for _ in counts]
    distributed.all_gather(every, padded)
    return torch.cat([part[: int(n)] for part, n in zip(every, counts, strict=True)])


def require_finite(sound: Tensor, k: int) -> None:
    """Refuses batch k in every process, where one of them says of an image that it is not finite: sound (n,) bool.

    A process that stopped by itself would leave the others waiting for its rows.
    """
    counts = torch.stack([(~sound).sum(), sound.new_full((), len(sound), dtype=torch.int64)])
    if several():
        distributed.all_reduce(counts)
    broken, images = counts.tolist()
    if broken:
        text = f"{broken} of {images} images of batch {k} hold NaN or infinity, or their features do"
        raise DataError(text, hint="repair them or leave them out")
