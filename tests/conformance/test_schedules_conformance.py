"""The learning-rate schedules of eval.json."""

from __future__ import annotations

import pytest

from healmap.methods.schedules import lr_decay

from . import reference as ref

pytestmark = pytest.mark.conformance

CASES = {k: v for k, v in ref.load_json("eval.json").get("cases", {}).items() if k.startswith("lr_schedule")}
KINDS = {"lr_schedule_as_released": "released", "lr_schedule_linear_to_zero": "linear"}


@pytest.mark.parametrize("name", CASES)
def test_conformance_of_schedule(name: str) -> None:
    case = CASES[name]
    scale = lr_decay(KINDS[name], case["num_iters_decay"] / case["num_iters"])  # type: ignore[arg-type]
    for done, expected in case["values_after_iteration"]:
        assert case["lr0"] * scale(done, case["num_iters"]) == pytest.approx(expected, rel=1e-9, abs=1e-15)
