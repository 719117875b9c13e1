"""warp(): where values are fetched from, and that nothing moves for nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from healmap.networks.warping import warp


@pytest.mark.parametrize("size", [(32, 32), (96, 40), (17, 23)])
def test_no_displacement_is_the_exact_identity(size):
    x = torch.randn(3, 2, *size)
    assert torch.equal(warp(x, torch.zeros(3, 2, *size)), x)


def test_the_value_is_fetched_from_p_plus_d():
    x = torch.randn(1, 1, 16, 16)
    d = torch.zeros(1, 2, 16, 16)
    d[:, 0] = 3  # x, to the right
    assert torch.equal(warp(x, d)[..., :13], x[..., 3:])
    d = torch.zeros(1, 2, 16, 16)
    d[:, 1] = -2  # y, upwards
    assert torch.equal(warp(x, d)[..., 2:, :], x[..., :14, :])


def test_it_equals_grid_sample():
    torch.manual_seed(0)
    x, d = torch.randn(2, 3, 20, 30), torch.randn(2, 2, 20, 30) * 6
    grid = torch.stack(((torch.arange(30) + d[:, 0]) / 29, (torch.arange(20)[:, None] + d[:, 1]) / 19), dim=-1) * 2 - 1
    assert_close(warp(x, d), F.grid_sample(x, grid, "bicubic", "border", align_corners=True), atol=2e-5, rtol=0)


def test_the_gradient_of_the_displacement_is_right():
    torch.manual_seed(0)
    x = F.avg_pool2d(torch.randn(1, 1, 10, 10), 3, 1, 1)
    d = torch.randn(1, 2, 10, 10) * 1.5
    d.requires_grad_()
    warp(x, d).square().sum().backward()
    with torch.no_grad():
        for index in [(0, 0, 4, 4), (0, 1, 5, 3), (0, 0, 2, 7)]:
            step = torch.zeros_like(d)
            step[index] = 1e-2
            numeric = (warp(x, d + step).square().sum() - warp(x, d - step).square().sum()) / 2e-2
            assert_close(d.grad[index], numeric, atol=2e-3, rtol=2e-2)


def test_wild_displacements_stay_finite():
    assert warp(torch.randn(1, 1, 8, 8), torch.full((1, 2, 8, 8), 1e9)).isfinite().all()
