"""Memory kept during training."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from healmap.training.allocator import freed_memory_kept


def faults(megabytes: int) -> int:
    for _ in range(12):                               # the heap grows by a few blocks before it settles
        torch.zeros(megabytes * 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="without effect elsewhere")
def test_a_large_block_is_used_again_only_inside():
    outside = faults(40)
    with freed_memory_kept():
        inside = faults(40)
    assert inside * 10 < outside
    assert faults(40) * 2 > outside
