"""Where shared test material lies. Tests that need it skip when it is absent; a place that was named must be there."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HEALMAP_SHARED", ROOT.parent / "shared"))
CONFORMANCE = Path(os.environ.get("HEALMAP_CONFORMANCE", SHARED / "conformance"))


def pytest_configure() -> None:
    for variable, place in (("HEALMAP_SHARED", SHARED), ("HEALMAP_CONFORMANCE", CONFORMANCE)):
        if variable in os.environ and not place.is_dir():
            raise pytest.UsageError(f"{variable} names no folder: {place}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With HEALMAP_NO_SKIPS, for a machine that has everything, a test that would be left out fails."""
    report = yield
    if report.skipped and os.environ.get("HEALMAP_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{reason}; but HEALMAP_NO_SKIPS is set"
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared data folder is absent (set HEALMAP_SHARED)")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("HEALMAP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
