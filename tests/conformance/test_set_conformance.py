"""A set of reference outputs that is there is read: an empty or renamed file must not pass by having no cases."""

from __future__ import annotations

import pytest

from tests.conftest import CONFORMANCE

from . import reference as ref

pytestmark = pytest.mark.conformance


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason=f"no reference outputs in {CONFORMANCE.name} (set HEALMAP_CONFORMANCE)")
def test_conformance_set_has_cases() -> None:
    networks = ref.load_json("manifest.json").get("networks", [])
    cases = ref.load_json("losses.json").get("cases", {})
    assert networks, "manifest.json lists no network"
    assert cases, "losses.json lists no case"
    listed = {net["name"] for net in networks}
    stored = {p.stem for p in CONFORMANCE.glob("*_[GD]*.npz")}
    assert stored == listed, "outputs without an entry, or entries without outputs"
