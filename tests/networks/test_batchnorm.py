"""Batch norm at inference: stored statistics, or each image's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from healmap.networks.batchnorm import BatchNorm


def made(statistics, seed=0):
    torch.manual_seed(seed)
    norm = BatchNorm(3, statistics)
    with torch.no_grad():
        norm.weight.normal_(1, 0.2)
        norm.bias.normal_(0, 0.2)
        norm(torch.randn(8, 3, 5, 5) * 3 + 1)
    return norm


@pytest.mark.parametrize("statistics", ["stored", "image"])
def test_it_trains_as_torchs(statistics):
    norm, other, x = made(statistics), nn.BatchNorm2d(3), torch.randn(4, 3, 6, 6)
    other.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), other(x))
    assert all(torch.equal(a, b) for a, b in zip(norm.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("layout", ["planes", "channels last", "crop", "crop, channels last"])
@torch.no_grad()
def test_an_image_by_itself(layout):
    norm = made("image").eval()
    x = torch.randn(2, 3, 9, 9)
    if "channels last" in layout:
        x = x.contiguous(memory_format=torch.channels_last)
    if "crop" in layout:
        x = x[:, :, 1:7, 2:8]
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    by_hand = (x - mean) / (var + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), by_hand, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    assert not torch.allclose(made("stored").eval()(x), by_hand, atol=0.1)
