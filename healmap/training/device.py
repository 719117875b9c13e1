"""Which processor, which arithmetic: the one place where Lightning Fabric is built."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..errors import ConfigError
from ..experiment import TrainingConfig
from ..methods.single_precision import single_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PLUGIN = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def choose_device(wanted: str) -> str:
    """``auto`` becomes cuda, mps or cpu, whichever is there. Raises ConfigError if the wanted one is absent."""
    mps = torch.backends.mps.is_available()
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if wanted not in there:
        raise ConfigError(f"unknown device '{wanted}'", where="training.device", hint="use auto, cpu, cuda or mps")
    if not there[wanted]:
        raise ConfigError(f"device '{wanted}' is not available here", where="training.device", hint="use auto or cpu")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """``auto`` becomes ``bf16`` where the processor computes in it faster than in fp32, else ``32``."""
    if wanted == "auto":
        if device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
        return "bf16" if device == "cpu" and cpu_has_bf16() else "32"
    if wanted == "16" and device == "cpu":
        raise ConfigError("precision 16 needs a graphics processor", where="training.precision", hint="use bf16, 32 or auto")
    return wanted


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX); measured where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
        if flags:
            return any(word in flags.split() for word in ("avx512_bf16", "amx_bf16", "bf16"))
    except OSError:
        pass
    return _bf16_is_faster()


def _bf16_is_faster(repeats: int = 5) -> bool:
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return best[torch.bfloat16] * 1.3 < best[torch.float32]


def build_fabric(training: TrainingConfig, device: str, precision: str) -> Fabric:
    """A Fabric of that device, precision and number of devices; not yet launched."""
    from lightning_fabric import Fabric

    # It announces the precision on standard error; the manifest records it.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    if training.devices > 1 and device == "cuda" and torch.cuda.device_count() < training.devices:
        raise ConfigError(
            f"{training.devices} devices asked for, {torch.cuda.device_count()} found",
            where="training.devices",
            hint="lower it",
        )
    return Fabric(
        accelerator=device,
        devices=training.devices,
        strategy="ddp" if training.devices > 1 else "auto",
        precision=PLUGIN[precision],  # type: ignore[arg-type]
    )


def is_first_process() -> bool:
    """Whether this is the process a user started (a data-parallel run starts copies of it, which must not judge folders)."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


@contextmanager
def autocast(fabric: Fabric) -> Iterator[None]:
    """Fabric's precision for a whole step.

    The cache of cast weights is off: inside one step a critic is updated and used again, and networks run both with and
    without gradients; a cast kept from before would be stale, or would cut the gradient.
    """
    with fabric.autocast():
        before = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            yield
        finally:
            torch.set_autocast_cache_enabled(before)


@contextmanager
def process_settings(training: TrainingConfig) -> Iterator[None]:
    """Thread count, deterministic kernels, exact single precision; put back afterwards: a user's process stays as it was."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    strict, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = (cudnn.benchmark, cudnn.deterministic)
    if training.threads:
        torch.set_num_threads(training.threads)
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = not training.deterministic, training.deterministic
    try:
        with single_precision():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic = before
