"""Checks that several methods' settings share."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..errors import ConfigError


def require_positive(config: object, *names: str) -> None:
    """Raises ConfigError unless every named setting is above zero."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{name} must be positive, not {value}", hint="the method's page has usual values")


def require_betas(config: Any) -> None:
    """Raises ConfigError unless Adam's decay rates ``betas`` lie in [0, 1)."""
    if not all(0 <= beta < 1 for beta in config.betas):
        raise ConfigError(f"betas {config.betas} do not lie in [0, 1)", hint="the method's page has the published ones")


def require_unset(config: Any, *names: str, reason: str, hint: str) -> None:
    """Raises ConfigError where a setting that nobody would read is not its default. ``reason``: why nobody would."""
    defaults = {f.name: f.default for f in fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise ConfigError(f"{name} is set, but {reason}", hint=hint)


def require_share(config: object, name: str) -> None:
    """Raises ConfigError unless the named setting lies in [0, 1]."""
    if not 0 <= getattr(config, name) <= 1:
        raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(config, name)}", hint="it is a share of the steps")
