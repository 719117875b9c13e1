"""Dataclass configurations: overrides by dotted path, to and from plain JSON data.

Types are checked by jsonargparse; this module adds the words: what is wrong, where, and the nearest correct name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from .errors import ConfigError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A dataclass (nested) as dicts, lists, strings, numbers: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value.value if isinstance(value, Enum) else value


def from_plain(cls: type[T], plain: Mapping[str, Any], *, where: str = "") -> T:
    """The inverse of :func:`to_plain` for a flat or nested dataclass. Missing fields take their defaults.

    Raises:
        ConfigError: unknown name (with the nearest one) or wrong type.
    """
    hints, names = get_type_hints(cls), [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for name, raw in plain.items():
        if name not in names:
            raise ConfigError(f"unknown setting '{name}'", where=where, hint=_did_you_mean(name, names))
        values[name] = _checked(hints[name], raw, f"{where}.{name}".strip("."))
    return cls(**values)


def override(config: T, assignments: Sequence[str], *, option: str = "--set") -> T:
    """``config`` with settings changed by ``"path.to.field=value"`` texts.

    Raises:
        ConfigError: no such field (with the nearest name) or a value of the wrong type.
    """
    for text in assignments:
        path, sign, raw = text.partition("=")
        if not sign:
            raise ConfigError(
                f"'{text}' is no assignment", where=option, hint="write name=value, for example method.lambda_id=0.5"
            )
        config = _assign(config, path.strip().split("."), raw.strip(), f"{option} {text}")
    return config


def _assign(config: Any, path: list[str], raw: str, where: str) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    name, rest = path[0], path[1:]
    if name not in names:
        raise ConfigError(f"unknown setting '{name}'", where=where, hint=_did_you_mean(name, names))
    current = getattr(config, name)
    if rest and not dataclasses.is_dataclass(current):
        raise ConfigError(f"'{name}' has no further settings", where=where, hint=f"write {name}=value")
    if not rest and dataclasses.is_dataclass(current):
        inner = [f.name for f in dataclasses.fields(current)]
        raise ConfigError(f"'{name}' is a group of settings", where=where, hint=f"name one of them: {name}.{inner[0]}, …")
    if rest:
        return dataclasses.replace(config, **{name: _assign(current, rest, raw, where)})
    hint = get_type_hints(type(config))[name]
    return dataclasses.replace(config, **{name: _checked(hint, _literal(raw, hint), where)})


def _literal(raw: str, hint: Any) -> Any:
    """A command-line word as the JSON value it stands for; lists may be written without brackets: ``1,2``."""
    if hint is str:
        return raw
    if "tuple" in str(hint) and raw[:1] not in ("[", "(") and raw not in ("null", "None"):
        return [_literal(part.strip(), Any) for part in raw.split(",") if part.strip()]
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(raw, raw))
    except json.JSONDecodeError:
        return raw


def _checked(hint: Any, value: Any, where: str) -> Any:
    """``value`` as type ``hint``, dataclasses included."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a group of settings, got {value!r}", where=where, hint="write an object")
        return from_plain(hint, value, where=where)  # type: ignore[arg-type]
    if hint is Any:
        return value
    if "Literal" in str(hint) and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # precision=32 means the choice "32"
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except (ArgumentError, ValueError, TypeError):
        name = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise ConfigError(f"{value!r} is not a {name}", where=where, hint="give a value of that type") from None


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else "known are " + ", ".join(sorted(names))
