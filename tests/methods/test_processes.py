"""Two processes that learn together hold the same state, and that of one which learns alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from torch.testing import assert_close

SCRIPT = Path(together.__file__)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes says at the end of together.py."""
    folder = tmp_path_factory.mktemp("processes")
    outs = [folder / f"{rank}.pt" for rank in (0, 1)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    commands = [[sys.executable, str(SCRIPT), str(rank), str(folder / "meet"), str(out)] for rank, out in enumerate(outs)]
    running = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        told = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(told)
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.mark.parametrize("case", together.CASES)
def test_two_processes_keep_one_state(both: list[dict[str, Any]], case: str) -> None:
    """Both hold all of it at every step: a checkpoint, which is the first one's, can be resumed from."""
    first, second = (found[case] for found in both)
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    if case in ("drawn", "random"):
        assert int(first["filled"]) == 40
        return
    for name, value in together.collect(together.collector(case)).items():
        assert_close(first[name], value, rtol=1e-6, atol=1e-6)


def test_statistics_of_layers_are_shared_and_nothing_else(both: list[dict[str, Any]]) -> None:
    (first, second), (a, b) = ([found["layers"][when] for found in both] for when in ("before", "after"))
    for name in ("norm.running_mean", "norm.running_var"):
        assert not torch.equal(first[name], second[name])
        assert_close(a[name], (first[name] + second[name]) / 2)
    for name in ("norm.running_mean", "norm.running_var", "spectral.u"):
        assert torch.equal(a[name], b[name])
    for own, kept in ((first, a), (second, b)):
        assert torch.equal(own["pool.images"], kept["pool.images"])
    assert not torch.equal(a["pool.images"], b["pool.images"])
