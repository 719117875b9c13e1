"""Segmentation terms against their naive loops."""

from __future__ import annotations

import math

import pytest
import torch

from healmap.losses.shape import pixel_cross_entropy, soft_dice


def case(k=3):
    torch.manual_seed(0)
    return torch.randn(2, k, 3, 4), torch.randint(0, k, (2, 3, 4))


def test_pixel_cross_entropy_equals_its_loop():
    logits, labels = case()
    p = logits.softmax(1)
    naive = [-math.log(p[n, labels[n, i, j], i, j]) for n in range(2) for i in range(3) for j in range(4)]
    assert pixel_cross_entropy(logits, labels).item() == pytest.approx(sum(naive) / 24, rel=1e-5)


def test_soft_dice_equals_its_loop_and_leaves_out_the_background():
    logits, labels = case()
    p, total = logits.softmax(1), 0.0
    for k in (1, 2):
        y = (labels == k).float()
        total += 1 - (2 * (p[:, k] * y).sum() + 1) / (p[:, k].sum() + y.sum() + 1)
    assert soft_dice(logits, labels).item() == pytest.approx(total.item() / 2, rel=1e-5)


def test_both_are_zero_for_a_sure_and_right_answer():
    _, labels = case()
    sure = 100 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert pixel_cross_entropy(sure, labels).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(sure, labels).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros_like(labels)
    sure = 100 * torch.nn.functional.one_hot(nothing, 3).movedim(-1, 1).float()
    assert soft_dice(sure, nothing).item() == pytest.approx(0, abs=1e-6), "a class that is absent and not seen is right"


def test_half_precision_logits_give_float32():
    logits, labels = case()
    for term in (pixel_cross_entropy, soft_dice):
        assert term(logits.bfloat16(), labels).dtype == torch.float32
        assert term(logits.double(), labels).dtype == torch.float64
