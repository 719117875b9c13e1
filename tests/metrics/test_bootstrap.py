from __future__ import annotations

import numpy as np
import pytest

from healmap.metrics.bootstrap import Figure, difference, figure, interval, resamples


def test_resamples_draw_every_patient_equally_and_repeat_with_the_seed() -> None:
    drawn = resamples(20, 4000, seed=3)
    assert drawn.shape == (4000, 20)
    assert (drawn.sum(axis=1) == 20).all()
    assert abs(drawn.mean() - 1) < 1e-12
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.08)
    np.testing.assert_array_equal(drawn, resamples(20, 4000, seed=3))


def test_interval_of_a_mean_has_the_width_theory_gives() -> None:
    values = np.random.default_rng(0).normal(size=200)
    drawn = resamples(200, 2000)
    low, high = interval(drawn @ values / 200)  # type: ignore[misc]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.1)


def test_undefined_resamples_are_left_out_and_too_many_give_none() -> None:
    assert interval([np.nan] * 40 + [0.5] * 60) == (0.5, 0.5)
    assert interval([np.nan] * 60 + [0.5] * 40) is None
    assert interval([]) is None


def test_a_figure_is_written_with_its_reason_or_its_interval() -> None:
    assert figure(float("nan"), None, 7, patients=3, reason="one class only").plain() == {
        "value": None,
        "ci95": None,
        "n": 7,
        "reason": "one class only",
    }
    assert figure(0.5, np.full(50, 0.5), 7, patients=3).plain() == {"value": 0.5, "ci95": [0.5, 0.5], "n": 7}
    assert figure(0.5, np.full(50, 0.5), 7, patients=1).plain() == {"value": 0.5, "ci95": None, "n": 7}


def test_difference_is_paired() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    a, b = figure(0.8, 0.8 + noise, 9, patients=5), figure(0.7, 0.7 + noise, 9, patients=5)
    got = difference(a, b)
    assert got.value == pytest.approx(0.1)
    assert got.ci95 == pytest.approx((0.1, 0.1))
    assert difference(a, Figure(None, n=3, reason="x")).value is None
