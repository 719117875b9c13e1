"""On a machine that has everything no test is left out quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(("value", "code", "word"), [("", 0, "2 skipped"), ("1", 1, "1 failed, 1 passed, 1 xfailed, 1 error")])
def test_a_skip_fails_where_none_is_allowed(tmp_path: Path, value: str, code: int, word: str) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.skipif(True, reason='no folder')\ndef test_one(): pass\n"
        "def test_two(): pytest.skip('no server')\ndef test_three(): pass\n"
        "@pytest.mark.xfail\ndef test_four(): raise ValueError\n"
    )
    words = ["-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.conftest", str(tmp_path)]
    environment = {**os.environ, "HEALMAP_NO_SKIPS": value}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    for text in (word, "1 passed", "1 xfailed"):
        assert text in done.stdout
    assert ("no server; but HEALMAP_NO_SKIPS is set" in done.stdout) == bool(value)
