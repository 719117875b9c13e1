"""Optimisers against their equations."""

from __future__ import annotations

import torch

from healmap.methods.optim import rmsprop


def test_rmsprop_begins_as_tensorflows_does():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimiser, square = rmsprop([w], lr=2e-3), torch.ones(2)
    by_hand = w.detach().clone()
    for g in (torch.tensor([0.5, -3.0]), torch.tensor([0.1, 0.2])):
        w.grad = g.clone()
        optimiser.step()
        square = 0.9 * square + 0.1 * g**2
        by_hand -= 2e-3 * g / (square + 1e-10).sqrt()
    torch.testing.assert_close(w.detach(), by_hand, rtol=1e-4, atol=1e-6)
