"""One of two processes that learn from one set of images; started twice by test_processes.py: RANK MEETING-PLACE OUT."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from healmap import methods
from healmap.errors import DataError
from healmap.methods.base import Method, Optimisers
from healmap.methods.processes import share_statistics
from healmap.networks.alad import SpectralLinear
from healmap.networks.pool import ImagePool
from healmap.types import Batch

CASES = {
    "padim": ("padim", {}),
    "k-centre": ("patchcore", {"patches_per_image": 0}),  # nothing is drawn: the bank does not depend on the processes
    "anomalib": ("patchcore", {"patches_per_image": 0, "features": "anomalib"}),
    "drawn": ("patchcore", {"patches_per_image": 3}),
    "random": ("patchcore", {"coreset": "random"}),
}


def collector(case: str) -> Method:
    name, changes = CASES[case]
    cls = methods.get(name)
    config, spec = cls.tiny()
    torch.manual_seed(0)
    return cls(dataclasses.replace(config, **changes), spec)


def noise(count: int) -> Tensor:
    """Images of a size that ``tiny`` takes, (count, 1, 32, 32) in [-1, 1]."""
    made = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(made, 3, 1, 1) * 2 - 1


def collect(method: Method, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """One pass in batches of 4 of 21 images: the last has one image, and none for a second process."""
    *_, phase = method.phases()
    torch.manual_seed(rank)  # as the trainer: the same weights, other random numbers
    for k, batch in enumerate(noise(21).split(4)):
        phase.step(iter([Batch(batch.tensor_split(world)[rank])]), k, Optimisers({}))
    phase.finish()
    return method.state_dict()


def refuse(method: Method, rank: int) -> None:
    """What is not finite in the images of the second process stops the first as well, which would wait for it otherwise."""
    *_, phase = method.phases()
    broken = noise(2) * (float("nan") if rank else 1.0)
    with pytest.raises(DataError, match="2 of 4 images of batch 7"):
        phase.step(iter([Batch(broken)]), 7, Optimisers({}))


class Layers(nn.Module):
    """What processes share after every step, and an image pool, which is each one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.spectral, self.pool = nn.BatchNorm2d(1), SpectralLinear(2, 3), ImagePool(2, (1, 32, 32))

    def see(self, image: Tensor) -> None:
        self.pool(self.norm(image))
        self.spectral(image.mean((1, 2, 3)).expand(2, 2))


def layers(rank: int) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    module = Layers()
    module.see(noise(4).tensor_split(2)[rank])
    before = {k: v.clone() for k, v in module.named_buffers()}
    share_statistics(module.named_buffers())
    return {"before": before, "after": dict(module.named_buffers())}


if __name__ == "__main__":
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found: dict[str, Any] = {"layers": layers(rank)}
    for case in CASES:
        found[case] = collect(collector(case), rank, 2)
        refuse(collector(case), rank)
    torch.save(found, out)
    distributed.destroy_process_group()
