"""What a run was made from and on: versions, machine, data. No host, user or path names: manifests travel."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "healmap",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightning-fabric",
    "safetensors",
    "pillow",
    "pydicom",
    "nibabel",
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["torch"] = str(torch.__version__)  # with the build: +cpu, +cu130
    return found


def machine() -> dict[str, Any]:
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "accelerators": cards,
    }


def peak_mb() -> float | None:
    """The most memory that this process has held resident so far, in MB (10^6 bytes); None where the system does not tell.

    Linux keeps it with the process's own memory. What getrusage tells there is at least that of the process that started this
    one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def git_revision() -> str | None:
    """The commit of the healmap source tree, ``+changed`` where files differ from it; None outside a checkout."""
    tree = Path(__file__).resolve().parents[2]
    if not (tree / ".git").exists():
        return None
    try:
        commit = _git(tree, "rev-parse", "HEAD")
        return commit + ("+changed" if _git(tree, "status", "--porcelain", "--untracked-files=no", "--", "healmap") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(tree: Path, *words: str) -> str:
    answer = subprocess.run(["git", "-C", str(tree), *words], capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
