"""Checks that several methods' settings share."""

from __future__ import annotations

from ..errors import ConfigError


def require_positive(config: object, *names: str) -> None:
    """Raises ConfigError unless every named setting is above zero."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{name} must be positive, not {value}", hint="the method's page has usual values")


def require_share(config: object, name: str) -> None:
    """Raises ConfigError unless the named setting lies in [0, 1]."""
    if not 0 <= getattr(config, name) <= 1:
        raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(config, name)}", hint="it is a share of the steps")
