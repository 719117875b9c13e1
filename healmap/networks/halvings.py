"""Sizes of networks that halve an image until 4 x 4 are left: GANomaly's and ALAD's."""

from __future__ import annotations

from ..errors import ConfigError


def halvings(height: int, width: int) -> int:
    """k of a side S = 4 · 2^k: how often it is halved on the way to 4 x 4. Raises ConfigError for other sizes."""
    k = max(height, 8).bit_length() - 3
    if height != width or height != 4 << k:
        near = 4 << max(1, (max(height, width) - 1).bit_length() - 2)
        raise ConfigError(
            f"images of {height} x {width} cannot be halved to 4 x 4",
            hint=f"use squares whose side is a power of two, for example {near}",
        )
    return k
