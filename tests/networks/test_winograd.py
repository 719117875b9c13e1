"""Winograd's convolution: the same numbers and gradients as torch's own, to the rounding that its page claims."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from healmap.networks import winograd


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "TILES", 1)


def made(n, channels, out, height, width, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(n, channels, height, width, dtype=dtype)
    return x, torch.randn(out, channels, 3, 3, dtype=dtype), torch.randn(out, dtype=dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 5, 4, 8, 12), (1, 1, 3, 4, 4), (3, 4, 1, 10, 6)])
def test_equals_torchs_own_with_gradients(shape, layout):
    x, weight, bias = made(*shape)
    x, weight = (t.contiguous(memory_format=layout).requires_grad_() for t in (x, weight))
    bias.requires_grad_()
    for b in (bias, None):
        ins = [x, weight, *([bias] if b is not None else [])]
        found, expected = winograd.conv2d(x, weight, b), F.conv2d(x, weight, b)
        assert found.grad_fn.name() == "_WinogradBackward"
        torch.testing.assert_close(found, expected)
        g = torch.randn_like(expected)
        for ours, theirs in zip(torch.autograd.grad(found, ins, g), torch.autograd.grad(expected, ins, g), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_multiplications():
    """4/9 of the direct ones, in every pass."""
    x, weight, _ = made(2, 6, 5, 10, 10)
    x.requires_grad_()
    weight.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        winograd.conv2d(x, weight).sum().backward()
    products = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    assert products * 9 == 4 * 3 * (2 * 2 * 8 * 8 * 9 * 6 * 5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-7), (torch.bfloat16, 8e-3)])
def test_rounding(dtype, bound):
    x, weight, _ = made(1, 256, 32, 18, 18, torch.float32)
    x, weight = x.to(dtype), (weight / 48).to(dtype).requires_grad_()
    exact = F.conv2d(x.double(), weight.double())
    assert (winograd.conv2d(x, weight).double() - exact).norm() <= bound * exact.norm()


def test_half_precision_stays_half_and_gradients_are_the_weights():
    x, weight, bias = (t.float().requires_grad_() for t in made(1, 4, 6, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        found = winograd.conv2d(x, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.conv2d(x, weight, bias), rtol=0.1, atol=0.2)
    assert {g.dtype for g in torch.autograd.grad(found.sum(), (x, weight, bias))} == {torch.float32}


def test_direct_where_nothing_is_learnt_or_the_size_is_odd():
    x, weight, bias = made(1, 4, 6, 8, 8)
    weight.requires_grad_()
    with torch.no_grad():
        assert torch.equal(winograd.conv2d(x, weight, bias), F.conv2d(x, weight, bias))
    odd = winograd.conv2d(x[..., :7], weight, bias)
    assert torch.equal(odd, F.conv2d(x[..., :7], weight, bias))


def test_gradient_of_the_weights_alone():
    x, weight, _ = made(1, 4, 6, 8, 8)
    weight.requires_grad_()
    found, expected = winograd.conv2d(x, weight), F.conv2d(x, weight)
    g = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(found, weight, g), torch.autograd.grad(expected, weight, g))
