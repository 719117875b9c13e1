"""The house plan of docs/architecture.md holds: a room imports only from floors below its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import healmap

PACKAGE = Path(healmap.__file__).parent
FLOORS = [
    {"errors", "types", "config", "experiment"},
    {"io", "networks", "losses", "metrics"},
    {"data", "methods"},
    {"training", "detection"},
    {"recipes", "evaluation", "report"},
    {"api"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: k for k, rooms in enumerate(FLOORS) for room in rooms}
GROUND_ORDER = {"errors": 0, "types": 1, "config": 2, "experiment": 2}


def imports(file: Path) -> set[str]:
    """Rooms of healmap that a file imports, TYPE_CHECKING and function bodies included."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package = ("healmap", *parts[:-1])
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*target, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        rooms |= {name[1] for name in names if name[0] == "healmap" and len(name) > 1}
    return rooms & set(FLOOR)


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py" or file.parent != PACKAGE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below(file: Path) -> None:
    room = file.relative_to(PACKAGE).with_suffix("").parts[0]
    for other in imports(file) - {room}:
        below = FLOOR[other] < FLOOR[room] or (FLOOR[room] == 0 and GROUND_ORDER[other] < GROUND_ORDER[room])
        assert below, f"{room} may not import {other}"


def test_every_room_has_a_floor() -> None:
    rooms = {p.stem for p in PACKAGE.iterdir() if (p.is_dir() and p.name != "__pycache__") or p.suffix == ".py"} - {"__init__"}
    assert rooms == set(FLOOR)


def test_engines_name_no_method() -> None:
    from healmap import methods

    modules = {module for module, _ in methods.METHODS.values()}
    for file in FILES:
        room = file.relative_to(PACKAGE).parts[0]
        if room in {"training", "detection", "evaluation", "report", "data"}:
            text = file.read_text(encoding="utf-8")
            assert not any(f"methods.{module}" in text or f"methods import {module}" in text for module in modules), file


def test_public_names_are_the_listed_ones() -> None:
    assert sorted(healmap.__all__) == sorted([*healmap._HOMES, "__version__"])
    for name in healmap.__all__:
        assert getattr(healmap, name) is not None


def test_light_rooms_do_not_import_torch() -> None:
    code = (
        "import sys, healmap, healmap.cli.main, healmap.config, healmap.experiment, healmap.io.read, healmap.io.write, "
        "healmap.metrics, healmap.data.table, healmap.api\n"
        "heavy = {'torch', 'lightning', 'pydicom', 'highdicom', 'nibabel', 'tifffile', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
