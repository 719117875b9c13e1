"""Memory kept during training."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# In a process of its own: what other tests left in the heap decides where a block comes from.
PROGRAM = """
import json, resource, torch
from healmap.training.allocator import freed_memory_kept

def faults(megabytes):
    for _ in range(12):                               # the heap grows by a few blocks before it settles
        torch.zeros(megabytes * 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

outside, before = faults(40), resident()
with freed_memory_kept():
    inside = faults(40)
    kept = [torch.zeros(100 * 2**18) for _ in range(4)]
    del kept
    within = resident()
print(json.dumps([outside, inside, within - before, resident() - before]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="without effect elsewhere")
def test_a_large_block_is_used_again_only_inside() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    outside, inside, within, after = json.loads(said.stdout)
    assert inside * 10 < outside
    assert within > 300  # megabytes that wait to be used again
    assert after < 100  # and went back to the system at the end
