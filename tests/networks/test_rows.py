"""Convolutions by rows: the same numbers and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from healmap.networks import rows


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("function", [rows.conv2d, rows.to_few, rows.from_few])
@pytest.mark.parametrize(("channels", "out"), [(5, 1), (12, 3), (1, 9), (3, 12), (16, 16)])
def test_equals_torchs_own_with_gradients(channels, out, function, layout):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 11, 9, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(out, channels, 7, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    bias = torch.randn(out, dtype=torch.float64, requires_grad=True)
    for b in (bias, None):
        found, expected = function(x, weight, b), F.conv2d(x, weight, b)
        torch.testing.assert_close(found, expected)
        g = torch.randn_like(expected)
        ins = [x, weight, *([bias] if b is not None else [])]
        for ours, theirs in zip(torch.autograd.grad(found, ins, g), torch.autograd.grad(expected, ins, g), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_half_precision_stays_half():
    x, weight, bias = torch.randn(1, 16, 10, 10), torch.randn(1, 16, 7, 7) / 28, torch.randn(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = rows.conv2d(x, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.conv2d(x, weight, bias), rtol=0.05, atol=0.05)
