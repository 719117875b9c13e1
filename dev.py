"""Set up and run without make: ``python dev.py demo`` and ``python dev.py test``.

Standard library only: it builds the environment that the rest needs. The Makefile calls it, so there is one source.
Environment variables: VENV (folder, .venv), EXTRAS (test), CONSTRAINTS (constraints.txt), VENV_FLAGS
(for example --system-site-packages, to keep a PyTorch that the machine already has).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / os.environ.get("VENV", ".venv")
EXTRAS = os.environ.get("EXTRAS", "test")
CONSTRAINTS = os.environ.get("CONSTRAINTS", "constraints.txt")
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")

COMMANDS = {
    "setup": [],
    "demo": [["-m", "healmap", "demo"]],
    "test": [["-m", "pytest"]],
    "test-slow": [["-m", "pytest", "-m", "slow"]],
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]],
    "format": [["-m", "ruff", "check", "--fix", "."], ["-m", "ruff", "format", "."]],
}


def environment() -> None:
    """Build the environment once; again when what it is made of has changed."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), EXTRAS.encode()]
    constraints = [] if os.devnull == CONSTRAINTS else ["-c", str(ROOT / CONSTRAINTS)]
    if constraints:
        parts.append((ROOT / CONSTRAINTS).read_bytes())
    wanted, stamp = hashlib.sha256(b"\0".join(parts)).hexdigest(), VENV / ".ready"
    if stamp.is_file() and stamp.read_text() == wanted and PYTHON.exists():
        return
    start = time.monotonic()
    print(f"building the environment in {VENV.name} (PyTorch is large; a few minutes on a slow line) …", flush=True)
    if not PYTHON.exists():
        shared = "--system-site-packages" in os.environ.get("VENV_FLAGS", "")
        venv.create(VENV, with_pip=True, system_site_packages=shared)
    run(["-m", "pip", "install", "-q", "--disable-pip-version-check", *constraints, "-e", f".[{EXTRAS}]"])
    stamp.write_text(wanted)
    print(f"environment ready after {time.monotonic() - start:.0f} s", flush=True)


def run(arguments: list[str]) -> None:
    code = subprocess.call([str(PYTHON), *arguments], cwd=ROOT)
    if code:
        sys.exit(code)


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before any environment exists
        sys.exit(f"healmap needs Python 3.11 or newer, this is {sys.version.split()[0]}: python3.11 dev.py …")
    words = sys.argv[1:]
    if not words or words[0] not in COMMANDS:
        sys.exit(f"usage: python dev.py {{{'|'.join(COMMANDS)}}}")
    environment()
    for command in COMMANDS[words[0]]:
        run([*command, *words[1:]] if command is COMMANDS[words[0]][-1] else command)


if __name__ == "__main__":
    main()
