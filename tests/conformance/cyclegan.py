"""CycleGAN's fixtures: its networks bear other names than those of the StarGAN family, and there are two of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from healmap import methods
from healmap.types import Spec

from . import reference as ref

# The published names, and ours by direction. D_A judges images of set B.
NETWORK = {"G_A": "to_healthy", "G_B": "to_diseased", "D_A": "critic_healthy", "D_B": "critic_diseased"}
Computed = tuple[dict[str, float], dict[str, list[float]]]


def build(nets: Mapping[str, dict[str, Any]], shape: Sequence[int], dtype: torch.dtype, **settings: Any) -> Any:
    """A method with the listed networks, by G_A ... D_B; "G" and "D" stand for the first. What is not listed is made small."""
    given: dict[str, Any] = {"width": 1, "blocks": 1, "critic_width": 1, "critic_layers": 1, "pool": 0} | settings
    for role, net in nets.items():
        sizes = {e["name"]: e["shape"] for e in net["state_dict"] if e["kind"] == "weight"}
        if role.startswith("G"):
            given |= {"width": sizes["model.1.weight"][0], "blocks": sum("conv_block.1." in name for name in sizes)}
        else:
            given |= {"critic_width": sizes["model.0.weight"][0], "critic_layers": len(sizes) - 2}
    cls = methods.get("cyclegan")
    _, channels, height, width = shape
    method: Any = cls(cls.Config(**given), Spec(channels, height, width)).to(dtype)
    for role, net in nets.items():
        name = NETWORK[role if len(role) > 1 else f"{role}_A"]
        ref.fill(getattr(method, name), net)
    return method


def network_output(method: Any, role: str, x: Tensor) -> dict[str, Tensor]:
    if role == "D":
        return {"out0": method.critic_healthy(x)}
    assert torch.equal(method.heal(x), method.G(x))
    return {"out0": method.G(x)}


def losses(setup: dict[str, Any], nets: dict[str, Any], dtype: torch.dtype) -> Computed:
    listed = ref.load_json("losses.json")
    found = {re.search(r"[GD]_[AB]$", name).group(): listed["nets"][name] for name in setup["nets"]}  # type: ignore[union-attr]
    weights = {k: float(setup[k]) for k in ("lambda_A", "lambda_B", "lambda_identity")}
    kind = "least-squares" if setup["gan"].startswith("least squares") else "log"
    method = build(found, setup["image"], dtype, adversarial=kind, pool=50, **weights)
    x, y = (ref.image(listed["image_rule"], setup[f"image_seed_{s}"], setup["image"], dtype) for s in "AB")
    t = method.translate(x, y)
    g = method.generator_loss(x, y, t)
    d = method.critic_loss(x, y, method.pool_diseased(t.x_of_y), method.pool_healthy(t.y_of_x))
    total = {"G": g.total, "D": d.total}
    by_parameter: dict[str, list[float]] = {}
    for role, name in NETWORK.items():
        parameters = list(getattr(method, name).parameters())
        gradients = torch.autograd.grad(total[role[0]], parameters, retain_graph=True)
        by_parameter[role] = [float(g.double().norm()) for g in gradients]
    values = {
        "G_A": g["adv_healthy"],
        "G_B": g["adv_diseased"],
        "cycle_A": g["cyc_diseased"],
        "cycle_B": g["cyc_healthy"],
        "idt_A": g["id_healthy"],
        "idt_B": g["id_diseased"],
        "g_total": g.total,
        "D_A": d["healthy"],
        "D_B": d["diseased"],
    }
    norms = {f"{role}_grad_norm": float(np.linalg.norm(n)) for role, n in by_parameter.items()}
    return {k: v.item() for k, v in values.items()} | norms, by_parameter
