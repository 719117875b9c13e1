"""From plain data to a page: templates with everything escaped, pictures as data, nothing loaded and nothing run."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ..errors import UsageError
from ..io.atomic import write_text
from ..io.damage import DAMAGED

# Even if a name in the data were to slip through the escaping, the page may fetch and run nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation folder holds. pictures: arrays by "number/name"; log: rows of the run's log.csv."""

    folder: Path
    metrics: Mapping[str, Any]
    scores: list[dict[str, str]]
    curves: Mapping[str, Any]
    rows: list[dict[str, Any]]
    pictures: Mapping[str, NDArray[Any]]
    log: list[dict[str, str]]

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.metrics["protocol"]

    @property
    def top(self) -> float:
        """The map value at the top of the colour scale, fixed on validation data."""
        return float(self.protocol["thresholds"]["scale"]["value"] or 0.25)

    @property
    def name(self) -> str:
        return str(self.protocol.get("recipe") or self.protocol.get("method") or self.protocol.get("run"))


def read_evaluation(folder: Path | str) -> Evaluation:
    """Reads a folder written by ``healmap evaluate``.

    Raises:
        UsageError: a part is missing or damaged.
    """
    folder = Path(folder)
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        curves = json.loads((folder / "report" / "curves.json").read_text(encoding="utf-8"))
        rows = json.loads((folder / "report" / "pictures.json").read_text(encoding="utf-8"))
        scores = _csv(folder / "scores.csv")
        log = _csv(folder / "report" / "log.csv") if (folder / "report" / "log.csv").is_file() else []
        with np.load(folder / "report" / "pictures.npz", allow_pickle=False) as file:
            pictures = {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise UsageError(f"not a complete evaluation: {error}", where=str(folder), hint="run healmap evaluate again") from None
    return Evaluation(folder, metrics, scores, curves, rows, pictures, log)


def _csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_page(template: str, out: Path, **content: Any) -> Path:
    """Renders a template with autoescaping and writes it whole."""
    environment = Environment(
        loader=PackageLoader("healmap.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval, "plain": plain_text}
    return write_text(out, environment.get_template(template).render(policy=POLICY, **content))


def number(value: Any, *, percent: bool = False) -> str:
    """A figure for reading: three decimals, two digits if small, or per cent; a dash for none."""
    if value is None or value == "":
        return "–"
    return f"{100 * float(value):.2f} %" if percent else _short(float(value))


def interval(figure: Mapping[str, Any] | None, *, percent: bool = False) -> str:
    """The 95 % interval of a figure, or nothing."""
    ends = (figure or {}).get("ci95")
    if not ends or None in ends:
        return ""
    return " to ".join(f"{100 * e:.2f}" if percent else _short(e) for e in ends) + (" %" if percent else "")


def _short(value: float) -> str:
    return f"{value:.2g}" if 0 < abs(value) < 0.005 else f"{value:.3f}"


def plain_text(value: Any) -> str:
    """A setting as text: lists with commas, numbers short."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(v) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None or value == "" else str(value)


def png(picture: NDArray[np.uint8]) -> str:
    """uint8 (H, W[, 3]) as a data address."""
    from PIL import Image

    if picture.ndim == 3 and (picture == picture[..., :1]).all():
        picture = picture[..., 0]  # a third of the size
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def at(tree: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The figure at a dotted path, or None."""
    node: Any = tree
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node
