"""Optimisers against their equations."""

from __future__ import annotations

import torch

from healmap.methods.denoising_autoencoder import DenoisingAutoencoder
from healmap.methods.optim import adam, rmsprop


def test_adam_decays_weights_and_keeps_the_greatest_square():
    """Reddi et al., ICLR 2018: the step is divided by the greatest second moment so far; decay is added to the gradient."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimiser = adam([w], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, amsgrad=True)
    assert optimiser.defaults["fused"]
    by_hand, m, v, greatest = w.detach().clone(), torch.zeros(2), torch.zeros(2), torch.zeros(2)
    for t, g in enumerate((torch.tensor([0.5, -3.0]), torch.tensor([0.01, 0.2]), torch.tensor([0.3, 0.0])), 1):
        w.grad = g.clone()
        optimiser.step()
        g = g + 0.1 * by_hand
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        greatest = torch.maximum(greatest, v)
        by_hand = by_hand - 1e-2 * (m / (1 - 0.9**t)) / ((greatest / (1 - 0.99**t)).sqrt() + 1e-8)
    torch.testing.assert_close(w.detach(), by_hand)


def test_where_no_device_offers_the_fused_form_the_plain_one_serves():
    with torch.device("meta"):
        method = DenoisingAutoencoder(*DenoisingAutoencoder.tiny())
    assert not method.phases()[0].optimisers["net"].defaults["fused"]


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
