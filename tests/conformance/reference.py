"""Reading the reference outputs: the rules that fill networks and images, and which of our methods a case belongs to.

The folder's own README.md is the specification; nothing here computes a method.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from healmap import methods
from healmap.types import Domains, Spec
from tests.conftest import CONFORMANCE

# How the reference files abbreviate a method -> its command-line name.
METHOD_OF = {
    "stargan": "stargan",
    "fpgan": "fixed-point-gan",
    "healthygan": "healthygan",
    "brainomaly": "brainomaly",
    "descargan": "descargan",
    "cyclegan": "cyclegan",
}
LABELLED = ("stargan", "fpgan")


@cache
def load_json(name: str) -> dict[str, Any]:
    path = CONFORMANCE / name
    return json.loads(path.read_text()) if path.is_file() else {}


@cache
def load_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(CONFORMANCE / name) as file:
        return {key: file[key] for key in file.files}


def family_and_role(name: str) -> tuple[str, str]:
    """("fpgan", "G") of "loss_fpgan_G_binary_c1"."""
    found = re.match(r"(?:loss_)?([a-z]+)_([GD])", name)
    assert found, f"no method can be read from the name {name}"
    return found[1], found[2]


def require_method(family: str) -> str:
    """Command-line name of the family's method. A case that no method of ours answers is a failure, not a skip."""
    name = METHOD_OF.get(family, family)
    assert name in methods.names(), f"no method for the reference family '{family}'"
    return name


def draw(seed: int, index: int, shape: list[int]) -> np.ndarray:
    return np.random.default_rng([seed, index]).standard_normal(shape)


def entry_value(net: dict[str, Any], entry: dict[str, Any]) -> np.ndarray:
    """Rule 1: the value of one listed state-dict entry, in float64."""
    kind, shape = entry["kind"], entry["shape"]
    if kind == "num_batches_tracked":
        return np.zeros(shape)
    z = draw(net["seed"], entry["index"], shape)
    return {
        "weight": lambda: z * math.sqrt(2 / math.prod(shape[1:])),
        "norm_weight": lambda: 1 + 0.1 * z,
        "bias": lambda: 0.1 * z,
        "running_mean": lambda: 0.1 * z,
        "running_var": lambda: 1 + 0.2 * np.abs(z),
    }[kind]()


_filled: dict[tuple[int, str], dict[str, Tensor]] = {}


def fill(module: nn.Module, net: dict[str, Any]) -> None:
    """Rule 1, by way of a complete published state dict: its buffers must be accepted and its names be ours."""
    for last in [name for name in _filled if name != (net["seed"], net["constructed_as"])]:
        del _filled[last]  # one network's tests follow each other; a critic is 360 MB
    state = _filled.setdefault((net["seed"], net["constructed_as"]), {})
    for entry in net["state_dict"] if not state else []:
        value = entry_value(net, entry)
        np.testing.assert_allclose(value.sum(), entry["sum"], rtol=1e-9, atol=1e-9, err_msg=entry["name"])
        state[entry["name"]] = torch.from_numpy(np.asarray(value))
    module.load_state_dict(state, strict=True)
    ours = [list(p.shape) for p in module.parameters()]
    listed = [e["shape"] for e in net["state_dict"] if e["kind"] in ("weight", "norm_weight", "bias")]
    assert ours == listed, "parameters are not in the published order"
    assert sum(p.numel() for p in module.parameters()) == net["trainable_parameters"]


def image(rule: dict[str, float], seed: int, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Rule 2."""
    b, c, h, w = shape
    u = np.random.default_rng([seed, 9999]).uniform(-1, 1, size=shape)
    ib, ic, ii, ij = np.ogrid[:b, :c, :h, :w]
    wave = np.sin(2 * np.pi * (ii * (ib + rule["oi"]) / h + ij * (ic + rule["oj"]) / w) + rule["phase"])
    return torch.from_numpy(rule["g1"] * wave + rule["g2"] * u).to(dtype)


def alpha(seed: int, n: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, 8888]).uniform(0, 1, size=(n, 1, 1, 1))).to(dtype)


def codes(labels: list[Any], classes: int, dtype: torch.dtype) -> Tensor:
    """Listed labels (class indices or code vectors) as codes (N, classes)."""
    given = torch.tensor(labels)
    given = nn.functional.one_hot(given, classes) if given.ndim == 1 else given
    return given.to(dtype)


def build(family: str, spec_of: dict[str, dict[str, Any]], shape: list[int], dtype: torch.dtype, **settings: Any) -> Any:
    """A method of ours with the listed networks ("G", "D"), sizes read from their entries; what is not listed is made small."""
    if family == "cyclegan":
        from . import cyclegan

        return cyclegan.build(spec_of, shape, dtype, **settings)
    if family == "descargan":
        from . import descargan

        return descargan.build(spec_of, shape, dtype, **settings)
    cls = methods.get(require_method(family))
    sizes = {role: {e["name"]: e["shape"] for e in net["state_dict"]} for role, net in spec_of.items()}
    channels, height, width = shape[1:]
    given: dict[str, Any] = {"width": 1, "blocks": 1, "critic_width": 1, "critic_layers": 2} | settings
    planes = 0
    if "G" in sizes:
        first = sizes["G"]["main.0.weight"]
        given |= {"width": first[0], "blocks": sum(n.endswith("main.0.weight") for n in sizes["G"]) - 1}
        planes = first[1] - channels
    if "D" in sizes:
        trunk = [n for n in sizes["D"] if re.fullmatch(r"main\.\d+\.weight", n)]
        given |= {"critic_width": sizes["D"][trunk[0]][0], "critic_layers": len(trunk)}
        planes = sizes["D"].get("conv2.weight", [0])[0]
    if family in LABELLED and "encoding" not in given:
        given["encoding"] = "binary" if planes == 1 else "one-hot"
    names = tuple(f"class {i}" for i in range(max(2, planes)))
    domains = Domains(names, exclusive=given.get("encoding") != "multi-hot")
    method = cls(cls.Config(**given), Spec(channels, height, width, domains)).to(dtype)
    for role, net in spec_of.items():
        fill(getattr(method, role), net)
    return method
