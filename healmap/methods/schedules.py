"""Learning-rate schedules of the StarGAN family, as factors on the rate: (steps done, total) -> factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Decay = Literal["linear", "released", "constant"]

_RELEASED_EVERY = 1000  # the published programs change the rate once per thousand steps


def lr_decay(kind: Decay, share: float) -> Callable[[int, int], float]:
    """Constant, then decayed over the last ``share`` of the steps.

    linear: to zero by the last step, as the papers describe it.
    released: as the published programs do it: once per 1,000 steps one decay-step's worth is subtracted, so that with their
    100,000 decay steps the rate ends at 99.9 % of its start.
    constant: no decay.
    """

    def scale(k: int, total: int) -> float:
        steps = share * total
        if kind == "constant" or steps <= 0:
            return 1.0
        start = total - steps
        if kind == "linear":
            return 1 - min(max(0.0, k - start) / steps, 1.0)
        return 1 - max(0, k // _RELEASED_EVERY - int(start) // _RELEASED_EVERY) / steps

    return scale
