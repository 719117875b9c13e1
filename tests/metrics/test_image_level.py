from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from healmap.metrics import image_level as m

labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40)


@given(labelled)
def test_best_f1_threshold_is_the_best_of_all(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)
    if not labels.any():
        with pytest.raises(ValueError, match="diseased"):
            m.best_f1_threshold(labels, scores)
        return
    got = m.confusion(labels, scores, m.best_f1_threshold(labels, scores)).f1
    assert got == pytest.approx(max(f1_score(labels, scores >= t) for t in np.unique(scores)), abs=1e-12)


def test_best_f1_threshold_lies_between_the_classes() -> None:
    assert m.best_f1_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)


@given(st.lists(st.floats(0, 1), min_size=20, max_size=60, unique=True), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_healthy_quantile_calls_no_more_than_its_share(scores: list[float], quantile: float) -> None:
    threshold = m.healthy_quantile_threshold(scores, quantile)
    assert np.mean(np.array(scores) >= threshold) <= 1 - quantile + 1e-9


def test_kappa_agrees_with_scikit_learn_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, 400)
    b = np.where(rng.random(400) < 0.8, a, 1 - a)
    kappa = m.cohen_kappa([[((a == i) & (b == j)).sum() for j in (0, 1)] for i in (0, 1)])
    assert kappa.value == pytest.approx(cohen_kappa_score(a, b))
    assert kappa.ci95[0] < 0.6 < kappa.ci95[1]


def test_one_class_gives_no_auroc() -> None:
    assert np.isnan(m.auroc([1, 1], [0.1, 0.3]))
    assert np.isnan(m.average_precision([0, 0], [0.1, 0.3]))


def test_scores_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        m.auroc([0, 1], [0.1, float("nan")])


def test_aucp_rejects_empty_sets_and_counts_ties_half() -> None:
    with pytest.raises(ValueError, match="AUCp"):
        m.aucp([], [0.1])
    assert m.aucp([0.5], [0.5]) == 0.5
    with pytest.raises(ValueError, match="finite"):
        m.select_by_aucp([(0, float("nan"))])
