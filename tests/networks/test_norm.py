"""Instance norm as a batch norm of each image: the same numbers and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from healmap.networks.norm import InstanceNorm, instance_norm


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_torchs_own_with_gradients(dtype, tolerance, layout, relu):
    torch.manual_seed(0)
    x = (torch.randn(3, 5, 8, 6, dtype=dtype) * 2 + 1).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.randn(5, dtype=dtype, requires_grad=True) for _ in range(2))
    expected = F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    expected = expected.relu() if relu else expected
    found = instance_norm(x, weight, bias, relu=relu)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert found.is_contiguous(memory_format=layout)
    g = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight, bias), g), torch.autograd.grad(expected, (x, weight, bias), g), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_without_weights_it_equals_torchs_own(dtype, tolerance, layout):
    torch.manual_seed(0)
    x = (torch.randn(3, 5, 8, 6) * 2 + 1).to(dtype).contiguous(memory_format=layout).requires_grad_()
    wide = x.detach().double().requires_grad_()
    norm = InstanceNorm(5, relu=True, affine=False)
    assert not norm.state_dict()
    found, expected = norm(x), F.instance_norm(wide).relu()
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    (ours,), (theirs,) = torch.autograd.grad(found.square().sum(), x), torch.autograd.grad(expected.square().sum(), wide)
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=10 * tolerance)


def test_half_precision_images_meet_float32_weights():
    torch.manual_seed(0)
    x, norm = torch.randn(2, 4, 16, 16), InstanceNorm(4, relu=True)
    found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(x), rtol=0.02, atol=0.02)


def test_only_the_gradients_asked_for_are_made():
    norm = InstanceNorm(4).requires_grad_(False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is None


def test_an_image_ignores_its_neighbours_and_the_mode():
    norm, x = InstanceNorm(4), torch.randn(3, 4, 8, 8)
    together = norm(x)
    assert torch.equal(together[1:2], norm(x[1:2]))
    assert torch.equal(together, norm.eval()(x))


def test_stored_running_statistics_are_accepted_and_ignored():
    norm = InstanceNorm(4)
    stored = {"weight": torch.ones(4), "bias": torch.zeros(4), "running_mean": torch.full((4,), 9.0)}
    stored |= {"running_var": torch.full((4,), 9.0), "num_batches_tracked": torch.tensor(7)}
    norm.load_state_dict(dict(stored), strict=True)
    assert set(norm.state_dict()) == {"weight", "bias"}
    with pytest.raises(RuntimeError, match="unknown"):
        norm.load_state_dict(stored | {"unknown": torch.ones(4)}, strict=True)


CUTS = {
    "crop": lambda x: x[:, :, 1:7, 2:5],
    "every second channel": lambda x: x[:, ::2],
    "the first channels": lambda x: x[:, :3],
    "turned": lambda x: x.transpose(2, 3),
    "repeated": lambda x: x[:, :1].expand(-1, 4, -1, -1),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_parts_of_a_larger_tensor(cut, layout):
    torch.manual_seed(0)
    whole = torch.randn(2, 6, 8, 7, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found, expected = instance_norm(cut(whole)), F.instance_norm(cut(whole))
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(y, whole, g)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs)
    even = torch.autograd.grad(instance_norm(cut(whole)).pow(2).mean((2, 3)).sum(), whole)[0]  # its gradient is expanded
    assert float(even.abs().max()) < 1e-4
