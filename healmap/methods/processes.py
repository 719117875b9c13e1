"""What data-parallel processes tell each other beyond gradients: statistics that a method collects from images.

A checkpoint holds the first process's state, so every process has to keep the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def several() -> bool:
    """Whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized()


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
