"""Generator and critic of the StarGAN family."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from healmap.errors import ConfigError
from healmap.networks.stargan import Critic, Generator, Halving, LeakyReLU, check_sizes


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("planes", "expected"), [(1, 8_417_984), (2, 8_421_120), (5, 8_430_528), (8, 8_439_936)])
def test_fact_generator_parameters(planes, expected):
    with torch.device("meta"):
        assert count(Generator(3, planes, 3)) == expected
        assert count(Generator(1, planes, 1)) == 8_396_032 + 3136 * (2 + planes)


@pytest.mark.parametrize(
    ("size", "classes", "expected"),
    [(64, 1, 44_723_136), (64, 8, 44_737_472), (128, 1, 44_729_280), (128, 5, 44_762_048), (256, 1, 44_753_856)],
)
def test_fact_critic_parameters(size, classes, expected):
    with torch.device("meta"):
        assert count(Critic(3, classes, (size, size))) == expected


def test_fact_healthygan_parameters():
    with torch.device("meta"):
        assert count(Generator(3, 0, 4)) == 8_417_984
        assert count(Critic(3, 0, (256, 256))) == 44_721_088


def test_fact_stargan_is_53_million_parameters():
    with torch.device("meta"):
        assert count(Generator(3, 5, 3)) + count(Critic(3, 5, (128, 128))) == 53_192_576


@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 28)])
def test_generator_keeps_the_size(height, width):
    g = Generator(1, 2, 1, width=4, blocks=1)
    assert g(torch.randn(2, 1, height, width), torch.eye(2)).shape == (2, 1, height, width)


def test_generator_answers_for_each_image_alone_and_to_its_label():
    torch.manual_seed(0)
    g, x = Generator(1, 1, 1, width=8, blocks=1), torch.randn(3, 1, 16, 16)
    c = torch.tensor([[0.0], [1.0], [1.0]])
    together = g(x, c)
    torch.testing.assert_close(together[1:2], g(x[1:2], c[1:2]))
    assert not torch.allclose(together[1:2], g(x[1:2], 1 - c[1:2]))


@pytest.mark.parametrize("layers", [3, 5])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_critic_heads(size, layers):
    d = Critic(1, 3, size, width=4, layers=layers)
    source, logits = d(torch.randn(2, 1, *size))
    assert source.shape == (2, 1, size[0] >> layers, size[1] >> layers)
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [4, 6, 16])
def test_halving_as_a_product_equals_the_convolution(size, layout):
    torch.manual_seed(0)
    layer = Halving(6, 40).double().to(memory_format=layout)
    x = torch.randn(2, 6, size, size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    few = 2 * (size // 2) ** 2 <= 40
    expected = F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    found = layer(x)
    assert ("Convolution" in type(found.grad_fn).__name__) != few, "both ways should be tried"
    torch.testing.assert_close(found, expected)
    inputs = (x, layer.weight, layer.bias)
    for ours, theirs in zip(*(torch.autograd.grad(y.sin().sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)
    if layout is torch.channels_last:
        assert found.is_contiguous(memory_format=layout)


def test_leaky_relu_and_its_two_derivatives():
    x = torch.tensor([-2.0, -0.5, 0.25, 3.0], dtype=torch.float64, requires_grad=True)
    y = LeakyReLU()(x)
    torch.testing.assert_close(y, F.leaky_relu(x, 0.01))
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    torch.testing.assert_close(g, 2 * torch.where(x > 0, x, 1e-4 * x))
    (h,) = torch.autograd.grad(g.sum(), x)
    torch.testing.assert_close(h, torch.tensor([2e-4, 2e-4, 2.0, 2.0], dtype=torch.float64))


def test_leaky_relu_hands_no_zeros_down_when_a_penalty_is_differentiated():
    """Differentiating the penalty costs one product per layer and weight, none for the forward pass."""
    x, first, second = (torch.randn(4, 4, requires_grad=True) for _ in range(3))
    (g,) = torch.autograd.grad(LeakyReLU()(LeakyReLU()(x @ first) @ second).sum(), x, create_graph=True)
    penalty = g.square().sum()
    with FlopCounterMode(display=False) as counter:
        gradients = torch.autograd.grad(penalty, (first, second))
    assert all(g.abs().sum() > 0 for g in gradients)
    product = 2 * 4**3
    assert counter.get_total_flops() == 3 * product, "two gradients of weights, one passed on from the first layer"


@pytest.mark.parametrize(
    ("size", "layers", "whole", "words"),
    [
        ((130, 128), 6, True, "height 130.*multiple of 4"),
        ((96, 96), 6, True, "halves it 6 times.*multiple of 64, or critic_layers=5"),
        ((128, 100), 6, True, "width is 100.*critic_layers=2"),
        ((32, 32), 6, False, "halves it 6 times"),
        ((64, 64), 0, True, "critic_layers must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_a_way_out(size, layers, whole, words):
    with pytest.raises(ConfigError, match=words):
        check_sizes(*size, layers, whole=whole)


@pytest.mark.parametrize(("size", "layers", "whole"), [(64, 6, True), (96, 5, True), (32, 5, True), (96, 6, False)])
def test_sizes_that_fit(size, layers, whole):
    check_sizes(size, size, layers, whole=whole)
