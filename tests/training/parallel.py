"""Two processes on the CPU train together; started by test_parallel.py, and by Fabric once more for the second process."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import toys

from healmap.training import loop, train_run
from healmap.training.optimisers import FabricOptimisers

name, data, out, stop = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

seen: list[str] = []
average = FabricOptimisers._average_gradients


def checked(self: FabricOptimisers, parameters: list[torch.Tensor]) -> None:
    before = parameters[0].grad.clone()
    both = self._fabric.all_gather(before)
    average(self, parameters)
    torch.testing.assert_close(parameters[0].grad, both.mean(0))
    assert not torch.equal(both[0], both[1]), "each process has images of its own"


after_step = loop.Loop._after_step


def compared(self: loop.Loop, *arguments: object) -> None:
    digest = torch.tensor([float(p.detach().double().sum()) for p in self.method.parameters()], dtype=torch.float64)
    both = self.fabric.all_gather(digest)
    assert torch.equal(both[0], both[1]), "the processes' weights went apart"
    seen.append(hashlib.sha256(digest.numpy().tobytes()).hexdigest())
    after_step(self, *arguments)
    for name, buffer in [*self.method.named_buffers(), *self.average.tensors().items()]:
        both = self.fabric.all_gather(buffer)
        assert torch.equal(both[0], both[1]), f"the processes' {name} went apart"


FabricOptimisers._average_gradients = checked
loop.Loop._after_step = compared
if stop:
    loop.Loop._stop_wanted = lambda self, wish: "a test" if self.position.done == stop else ""
toy = toys.toy(name, data, steps=6, devices=2, device="cpu")
train_run(toy.experiment, toy.train, toy.val, out, resume=True, quiet=True)
assert seen
