"""Where shared test material lies. Tests that need it skip when it is absent; a place that was named must be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HEALMAP_SHARED", ROOT.parent / "shared"))
CONFORMANCE = Path(os.environ.get("HEALMAP_CONFORMANCE", SHARED / "conformance"))


def pytest_configure() -> None:
    for variable, place in (("HEALMAP_SHARED", SHARED), ("HEALMAP_CONFORMANCE", CONFORMANCE)):
        if variable in os.environ and not place.is_dir():
            raise pytest.UsageError(f"{variable} names no folder: {place}")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared data folder is absent (set HEALMAP_SHARED)")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("HEALMAP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
