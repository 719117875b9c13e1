"""Each term against its naive loop, and its least value where it should be."""

from __future__ import annotations

import math

import pytest
import torch

from healmap.losses import domains
from healmap.losses.adversarial import average, gradient_penalty
from healmap.losses.masks import mask_binary, mask_size
from healmap.losses.pixels import l1


def test_gradient_penalty_of_a_linear_critic_is_known():
    slope = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    real, fake = torch.randn(5, 2, 1, 1), torch.randn(5, 2, 1, 1)
    assert gradient_penalty(lambda x: (x * slope).sum(1, keepdim=True), real, fake).item() == pytest.approx((5 - 1) ** 2)


def test_gradient_penalty_differentiates_the_sum_of_the_patches():
    x = torch.randn(2, 1, 2, 2)
    assert gradient_penalty(lambda y: y, x, x).item() == pytest.approx((math.sqrt(4) - 1) ** 2)


def test_gradient_penalty_lies_between_real_and_fake_and_leaves_both_alone():
    seen = []
    real, fake = torch.zeros(4, 1, 2, 2, requires_grad=True), torch.ones(4, 1, 2, 2, requires_grad=True)

    def critic(x):
        seen.append(x)
        return x.square()

    gradient_penalty(critic, real, fake).backward()
    (x,) = seen
    assert (x.amin((1, 2, 3)) == x.amax((1, 2, 3))).all(), "one alpha per image"
    assert len(x[:, 0, 0, 0].unique()) == 4
    assert ((x > 0) & (x < 1)).all()
    assert real.grad is None
    assert fake.grad is None
    gradient_penalty(critic, real, fake, torch.tensor([1.0, 0, 1, 0]).view(4, 1, 1, 1))
    assert seen[1][:, 0, 0, 0].tolist() == [0, 1, 0, 1], "alpha is the share of the real image"


def test_gradient_penalty_reaches_the_critics_weights_in_half_precision():
    conv = torch.nn.Conv2d(1, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        value = gradient_penalty(conv, torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8))
    value.backward()
    assert value.dtype == torch.float32
    assert conv.weight.grad.abs().sum() > 0


def test_domain_losses_equal_their_loops():
    torch.manual_seed(0)
    logits, several = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    one = torch.eye(3)[[0, 2, 1, 1]]
    p = torch.sigmoid(logits)
    naive = -sum(math.log(p[i, k] if several[i, k] else 1 - p[i, k]) for i in range(4) for k in range(3)) / 4
    assert domains.independent(logits, several).item() == pytest.approx(naive, rel=1e-5)
    q = torch.softmax(logits, 1)
    naive = -sum(math.log(q[i][one[i] > 0]) for i in range(4)) / 4
    assert domains.exclusive(logits, one).item() == pytest.approx(naive, rel=1e-5)
    assert domains.exclusive(logits.bfloat16(), one).dtype == torch.float32


def test_mask_size_by_image_ignores_the_neighbours():
    mask = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert mask_size(mask).item() == pytest.approx(0.5)
    assert mask_size(mask, "batch").item() == pytest.approx(0.25)
    assert mask_size(mask[:1]).item() == 0


def test_mask_binary_is_zero_at_zero_and_one_and_greatest_between():
    for value, expected in ((0.0, 0.0), (1.0, 0.0), (0.5, 100 - 1 / 0.51)):
        assert mask_binary(torch.full((2, 1, 3, 3), value)).item() == pytest.approx(expected, abs=1e-4)


def test_means_are_taken_in_float32():
    x = torch.full((1, 1, 64, 64), 0.1).bfloat16()
    assert average(x).dtype == torch.float32
    assert average(x).item() == pytest.approx(x[0, 0, 0, 0].item(), rel=1e-6)
    assert average(x.double()).dtype == torch.float64
    assert l1(torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), -0.5)).item() == 0.5
