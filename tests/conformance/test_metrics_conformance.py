"""Scores, thresholds, AUCp, kappa and pixel metrics against the reference numbers of ``eval.json``."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from healmap.metrics import image_level, overlap, similarity
from tests.conftest import CONFORMANCE as FOLDER

CASES: dict[str, Any] = json.loads((FOLDER / "eval.json").read_text())["cases"] if (FOLDER / "eval.json").is_file() else {}
TIGHT = 1e-9  # float64
SINGLE = 1e-5  # the reference computed these in single precision

pytestmark = [pytest.mark.conformance, pytest.mark.skipif(not CASES, reason=f"no eval.json in {FOLDER}")]


def array(reference: str) -> np.ndarray:
    name, _, key = reference.partition(":")
    return np.load(FOLDER / name)[key]


def cases(*starts: str) -> list[str]:
    return [name for name in CASES if name.startswith(starts)] or ["absent"]


def known(name: str) -> dict[str, Any]:
    if name not in CASES:
        pytest.skip("this set has no such case")
    return CASES[name]


def test_conformance_every_case_is_of_a_kind_known_here() -> None:
    kinds = ("scores", "aucp", "kappa", "descargan_pixel", "fpgan_localisation", "lr_schedule")
    assert [name for name in CASES if not name.startswith(kinds)] == []


@pytest.mark.parametrize("name", cases("scores"))
def test_conformance_scores(name: str) -> None:
    case = known(name)
    labels, scores = array(case["labels"]), array(case["scores"])
    threshold = image_level.equal_error_threshold(labels, scores)
    assert image_level.auroc(labels, scores) == pytest.approx(case["auc"], abs=TIGHT)
    assert threshold == pytest.approx(case["threshold"], abs=TIGHT)
    counts = image_level.confusion(labels, scores, threshold)
    assert [counts.tp, counts.tn, counts.fp, counts.fn] == [case["tp"], case["tn"], case["fp"], case["fn"]]
    assert [counts.sensitivity, counts.specificity] == pytest.approx([case["sensitivity"], case["specificity"]], abs=TIGHT)


@pytest.mark.parametrize("name", [n for n in cases("aucp") if not n.startswith("aucp_selection")])
def test_conformance_aucp(name: str) -> None:
    case = known(name)
    value = image_level.aucp(array(case["healthy_scores"]), array(case["unlabelled_scores"]))
    assert value == pytest.approx(case["aucp"], abs=TIGHT)
    assert image_level.auc_from_aucp(value, case["contamination"]) == pytest.approx(case["estimated_auc"], abs=TIGHT)


@pytest.mark.parametrize("name", cases("aucp_selection"))
def test_conformance_aucp_selection(name: str) -> None:
    case = known(name)
    pairs = [(int(step), math.nan if value is None else float(value)) for step, value in case["checkpoints"]]
    assert image_level.select_by_aucp(pairs) == case["selected"]


@pytest.mark.parametrize("name", cases("kappa"))
def test_conformance_kappa(name: str) -> None:
    case = known(name)
    kappa = image_level.cohen_kappa(case["confusion"])
    assert kappa.value == pytest.approx(case["kappa"], abs=TIGHT)
    # The released bounds have the variance where the standard error belongs; ours follow from the same number.
    wrong = 1.96 * kappa.standard_error**2
    assert [kappa.value - wrong, kappa.value + wrong] == pytest.approx(
        [case["released_second_value"], case["released_third_value"]], abs=TIGHT
    )


@pytest.mark.parametrize("name", cases("descargan_pixel"))
def test_conformance_descargan_pixels(name: str) -> None:
    case = known(name)
    images = [array(case[name]) for name in ("input", "healed", "ground_truth")]
    got = similarity.descargan_pixels(*images, case["threshold"])
    masks = got.masks
    assert (masks.tp + masks.fp, masks.tp + masks.fn) == (case["predicted_pixels"], case["true_pixels"])
    assert [masks.dice, masks.iou, masks.precision, masks.recall, masks.accuracy] == pytest.approx(
        [case["dice"], case["jaccard"], case["precision"], case["recall"], case["accuracy"]], abs=TIGHT
    )
    assert got.auroc == pytest.approx(case["auroc_pixel"], abs=TIGHT)
    assert [
        got.otsu_true,
        got.otsu_difference,
        got.mse_difference,
        got.variance_of_residual,
        got.mse_healed,
        got.variance_of_difference,
    ] == pytest.approx(
        [
            case["otsu_of_abs_gt"],
            case["otsu_of_abs_diff"],
            case["mse_diff_gt"],
            case["variance_of_normalised_residual"],
            case["mse_input_healed_normalised"],
            case["variance_diff_unbiased"],
        ],
        abs=SINGLE,
    )
    # The reference's Gaussian, in single precision, does not sum to one; where an image is flat that outweighs K2 by some
    # 1e-5. Ours is in double precision and agrees with scikit-image to 1e-12 (tests/metrics).
    assert got.ssim == pytest.approx(case["ssim_minmax01"], abs=1e-4)


@pytest.mark.parametrize("name", cases("fpgan_localisation"))
def test_conformance_fpgan_localisation(name: str) -> None:
    case = known(name)
    difference = array(case["difference"])
    mask, threshold = similarity.percentile_mask(difference, case["percentile"])
    assert threshold == pytest.approx(case["threshold"], abs=TIGHT)
    assert int(mask.sum()) == case["mask_pixels"]
    np.testing.assert_array_equal(mask, array(case["mask"]).astype(bool))
    assert float(difference.max()) == pytest.approx(case["image_score_max"], abs=TIGHT)
    assert int(difference.max() / 2 * 255) == case["image_score_max_after_uint8_of_half_scale"]
    _, parts = overlap.label_components(mask)
    assert len(parts) == case["components_8"]
    assert sorted(p.area for p in parts) == sorted(case["areas_8"])
    _, candidates = overlap.label_components(mask, 10)
    assert [p.area for p in candidates] == [c["area"] for c in case["candidates_area_over_10"]]
    for part, want in zip(candidates, case["candidates_area_over_10"], strict=True):
        assert part.centroid == pytest.approx(want["centroid"], abs=TIGHT)
