"""The scenes of DeScarGAN's script, every random number given, against the reference arrays of ``synthetic.npz``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from healmap.data import published_ellipses as published
from healmap.data.ellipse_scenes import HALF, SIDE, Contour, Scene, Wave, displaced, fair_picture, smoothed
from healmap.metrics.similarity import min_max
from tests.conformance.reference import load_arrays, load_json

pytestmark = pytest.mark.conformance

CASES = load_json("synthetic.json").get("cases", [])
# Ours is float64. The reference looks its image up at single-precision places: an eps of 128 pixels, times the steepest edge.
TOLERANCE, LOOKED_UP = 1e-6, 2e-5


def scene_of(case: dict[str, Any]) -> Scene:
    c = case
    small = Contour(c["u1"], c["v1"], c["a1"], c["b1"], c["angle1"], c["thickness1"])
    large = Contour(c["u2"], c["v2"], c["a2"], c["b2"], c["angle2"], c["thickness2"])
    return Scene(Wave(c["v1"], c["u1"], c["h1"], c["f1"]), Wave(c["u2"], c["v2"], c["h2"], c["f2"]), small, large)


def computed(scene: Scene, n: int) -> dict[str, np.ndarray]:
    """Every stage of the published arithmetic."""
    raw = published.drawn(scene, n)
    image = smoothed(raw, beyond="constant")
    dx, dy = published.displacement(scene, n)
    ill = published.deformed(image, dx, dy)
    return {
        "background_only": published.background(scene, n),
        "raw_unsmoothed": raw,
        "image": image,
        "image_normalised": min_max(image),
        "deformed_ac_false": ill,
        "deformed_ac_true": published.deformed(image, dx, dy, align_corners=True),
        "difference_as_released": ill - image,
        "displacement_x": dx,
        "displacement_y": dy,
    }


@pytest.fixture(params=CASES, ids=lambda case: f"scene {case['index']}")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def stored(case: dict[str, Any]) -> dict[str, np.ndarray]:
    name = f"case{case['index']}/"
    return {k.removeprefix(name): v for k, v in load_arrays("synthetic.npz").items() if k.startswith(name)}


def test_every_stage_of_the_script(case: dict[str, Any]) -> None:
    """To the last pixel: the circles' rasterisation is the script's own, so no quantile is needed."""
    reference, scene = stored(case), scene_of(case)
    n = len(reference["image/rowsum"])
    assert len(published.rings(scene.small)) == case["thickness1_rings"]
    assert len(published.rings(scene.large)) == case["thickness2_rings"]
    ours = computed(scene, n)
    stages = [name for name in reference if "/" not in name]
    assert set(stages) == set(ours)
    for stage in stages:
        array, atol = ours[stage], LOOKED_UP if "deformed" in stage or "difference" in stage else TOLERANCE
        step = n // len(reference[stage])
        np.testing.assert_allclose(array[::step, ::step], reference[stage], rtol=0, atol=atol, err_msg=stage)
        np.testing.assert_allclose(array.sum(1), reference[f"{stage}/rowsum"], rtol=0, atol=n * atol, err_msg=stage)
        np.testing.assert_allclose(array.sum(0), reference[f"{stage}/colsum"], rtol=0, atol=n * atol, err_msg=stage)
        for what, value in case["arrays"][stage].items():
            assert getattr(array, what)() == pytest.approx(value, abs=atol), (stage, what)


def test_the_pictures_are_the_last_stages(case: dict[str, Any]) -> None:
    ours = computed(scene_of(case), SIDE)
    healthy, diseased, truth = published.pictures(scene_of(case), SIDE)
    assert np.array_equal(healthy, ours["image_normalised"])
    assert np.array_equal(diseased, ours["deformed_ac_false"])
    assert np.array_equal(truth, ours["difference_as_released"])


def test_the_fair_variant_shows_the_same_scene(case: dict[str, Any]) -> None:
    """Its waves are not cut to whole pixels (half a pixel on average), and it is displaced from the ellipse's very centre."""
    scene, ours = scene_of(case), computed(scene_of(case), SIDE)
    for diseased, stage in ((False, "image"), (True, "deformed_ac_true")):
        fair = fair_picture(scene, SIDE, diseased=diseased)
        assert np.corrcoef(fair.ravel(), ours[stage].ravel())[0, 1] > 0.95
    row, column = np.arange(SIDE)[:, None].astype(float), np.arange(SIDE)[None].astype(float)
    y, x = displaced(scene, row, column)
    assert np.abs((x - column) / HALF - ours["displacement_x"]).max() < 1 / HALF
    assert np.abs((y - row) / HALF - ours["displacement_y"]).max() < 1 / HALF
