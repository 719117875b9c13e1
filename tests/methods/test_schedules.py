"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from healmap.methods.schedules import lr_decay


def test_linear_ends_at_zero_and_never_rises():
    scale = lr_decay("linear", 0.5)
    values = [scale(k, 1000) for k in range(1001)]
    assert values[:501] == [1.0] * 501
    assert values[-1] == 0
    assert values == sorted(values, reverse=True)
    assert scale(750, 1000) == pytest.approx(0.5)
    assert scale(2000, 1000) == 0


def test_linear_holds_for_any_length():
    scale = lr_decay("linear", 0.25)
    assert scale(7, 10) == 1
    assert scale(9, 10) == pytest.approx(0.4)


def test_released_hardly_moves():
    scale = lr_decay("released", 0.5)
    assert scale(200_000, 200_000) == pytest.approx(0.999)
    assert scale(999, 200_000) == 1


@pytest.mark.parametrize("kind", ["linear", "released", "constant"])
def test_no_share_means_no_decay(kind):
    assert lr_decay(kind, 0.0)(10, 10) == 1
    assert lr_decay("constant", 0.5)(10, 10) == 1
