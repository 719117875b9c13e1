"""An experiment from the JSON that a run wrote (``experiment.json``): a copy of settings, never their source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import methods
from ..config import from_plain
from ..errors import ConfigError
from ..experiment import DataConfig, DetectionConfig, Experiment, TrainingConfig

GROUPS = {"data": DataConfig, "training": TrainingConfig, "detection": DetectionConfig}


def experiment_from_plain(plain: Mapping[str, Any], *, where: str = "experiment") -> Experiment:
    """The inverse of ``config.to_plain(experiment)``. Raises ConfigError for an unknown method, name or type."""
    if not isinstance(plain, Mapping) or "method_name" not in plain:
        raise ConfigError("no 'method_name' in it", where=where, hint="use the experiment.json of a run")
    unknown = set(plain) - {"method_name", "method", "recipe", *GROUPS}
    if unknown:
        raise ConfigError(f"unknown group '{sorted(unknown)[0]}'", where=where, hint="known are method, " + ", ".join(GROUPS))
    name = str(plain["method_name"])
    return Experiment(
        method_name=name,
        method=from_plain(methods.get(name).Config, plain.get("method", {}), where=f"{where}: method"),
        recipe=str(plain.get("recipe", "")),
        **{group: from_plain(cls, plain.get(group, {}), where=f"{where}: {group}") for group, cls in GROUPS.items()},
    )


def load_experiment(path: Path | str) -> Experiment:
    """The experiment in a JSON file. Raises ConfigError with the file's name when it cannot be read or understood."""
    path = Path(path)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("cannot be read", where=str(path), hint=error.strerror or "check the path") from None
    except (ValueError, RecursionError):
        raise ConfigError("is no JSON", where=str(path), hint="use the experiment.json of a run") from None
    return experiment_from_plain(plain, where=path.name)
