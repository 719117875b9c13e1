from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from healmap.metrics import curves
from healmap.metrics.bins import FLOOR, PixelTally, bin_keys, exact_bins, lower_edges


def maps(seed: int, patients: int = 4, slices: int = 3, side: int = 40) -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    made = []
    for p in range(patients):
        for _ in range(slices):
            truth = np.zeros((side, side), bool)
            y, x = rng.integers(5, side - 15, 2)
            truth[y : y + 8, x : x + 9] = rng.random() < 0.7
            values = rng.gamma(1.0, 0.05, truth.shape) + truth * rng.gamma(2.0, 0.08, truth.shape)
            made.append((f"p{p}", values.astype(np.float32), truth))
    return made


def tally(items: list[tuple[str, np.ndarray, np.ndarray]]) -> PixelTally:
    counts = PixelTally()
    for group, values, truth in items:
        counts.add(group, values, truth)
    return counts


@given(arrays(np.float32, 50, elements=st.floats(0, 1e6, width=32)))
def test_bins_keep_order_and_edges_are_below_their_values(values: np.ndarray) -> None:
    keys = bin_keys(values)
    order = np.argsort(values, kind="stable")
    assert (np.diff(keys[order]) >= 0).all()
    edges = lower_edges(keys)
    large = values >= FLOOR
    assert (edges[large] <= values[large]).all()
    assert (values[large] - edges[large] <= values[large] * 2.0**-10).all()


@pytest.mark.parametrize("bad", [[-0.1], [np.nan]])
def test_negative_or_missing_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        bin_keys(bad)


def test_pooled_figures_agree_with_scikit_learn() -> None:
    items = maps(0)
    positive, negative = tally(items).bins().pooled()
    values, truth = np.concatenate([v.ravel() for _, v, _ in items]), np.concatenate([t.ravel() for *_, t in items])
    assert curves.auroc(positive, negative) == pytest.approx(roc_auc_score(truth, values), abs=1e-4)
    assert curves.average_precision(positive, negative) == pytest.approx(average_precision_score(truth, values), abs=1e-3)


def test_figures_are_exact_where_values_are_bin_edges() -> None:
    rng = np.random.default_rng(1)
    values, truth = rng.integers(0, 256, 2000) / 256, rng.random(2000) < 0.3  # eight-bit steps are edges, with many ties
    counts = PixelTally()
    counts.add("p", values, truth)
    positive, negative = counts.bins().pooled()
    assert curves.auroc(positive, negative) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    assert curves.average_precision(positive, negative) == pytest.approx(average_precision_score(truth, values), abs=1e-12)


def test_best_dice_is_exact_at_its_threshold_and_near_the_best_of_all() -> None:
    items = maps(2)
    bins = tally(items).bins()
    positive, negative = bins.pooled()
    values, truth = np.concatenate([v.ravel() for _, v, _ in items]), np.concatenate([t.ravel() for *_, t in items])

    def dice(threshold: float) -> float:
        called = values >= threshold
        return 2 * (called & truth).sum() / (called.sum() + truth.sum())

    threshold = curves.best_dice_threshold(bins.values, positive, negative)
    assert dice(threshold) == pytest.approx(float(curves.best_dice(positive, negative)), abs=1e-12)
    brute = max(dice(t) for t in np.quantile(values, np.linspace(0, 1, 500)))
    assert float(curves.best_dice(positive, negative)) >= brute - 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_weighted_rows_are_the_figures_of_the_repeated_patients(seed: int) -> None:
    items = maps(seed, patients=3, slices=2, side=24)
    weights = np.random.default_rng(seed).multinomial(3, [1 / 3] * 3, size=2)
    bins = tally(items).bins()
    ((positive, negative),) = bins.weighted(weights)
    for row, drawn in enumerate(weights):
        again = PixelTally()
        for group, values, truth in items:
            for _ in range(drawn[bins.groups.index(group)]):
                again.add(group, values, truth)
        pos, neg = again.bins().pooled()
        for name in ("auroc", "average_precision", "best_dice"):
            f = getattr(curves, name)
            np.testing.assert_allclose(f(positive, negative)[row], f(pos, neg), atol=1e-12)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_exact_bins_agree_with_scikit_learn(rows: list[tuple[str, int, bool]]) -> None:
    groups, scores, labels = zip(*rows, strict=True)
    positive, negative = exact_bins(groups, scores, labels).pooled()
    if 0 < sum(labels) < len(labels):
        assert curves.auroc(positive, negative) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert curves.average_precision(positive, negative) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    else:
        assert np.isnan(curves.average_precision(positive, negative)), "one class proves nothing"
    if not any(labels):
        assert np.isnan(curves.best_dice(positive, negative))


def test_roc_starts_strict_and_ends_at_one() -> None:
    bins = exact_bins(["a"] * 4, [0.1, 0.4, 0.4, 0.9], [0, 1, 0, 1])
    curve = curves.roc(bins.values, *bins.pooled())
    assert curve.fpr.tolist() == [0, 0, 0.5, 1]
    assert curve.tpr.tolist() == [0, 0.5, 1, 1]
    assert curve.threshold.tolist() == [np.inf, 0.9, 0.4, 0.1]


def test_memory_does_not_grow_with_pixels() -> None:
    rng, counts = np.random.default_rng(0), PixelTally()
    for _ in range(30):
        counts.add("p", rng.random((128, 128)), rng.random((128, 128)) < 0.1)
    one = counts.bins()
    assert one.positive.nnz <= one.positive.shape[1] < 25 * 1024
    assert sum(float(c.sum()) for c in one.pooled()) == 30 * 128 * 128


def test_an_empty_tally_has_no_figure() -> None:
    positive, negative = PixelTally().bins().pooled()
    assert np.isnan(curves.auroc(positive, negative))
    assert np.isnan(curves.best_dice(positive, negative))
