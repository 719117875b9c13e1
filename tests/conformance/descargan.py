"""DeScarGAN's fixtures: one target class per call, and batch norm over the images of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from healmap import methods
from healmap.losses.adversarial import gradient_penalty
from healmap.types import Spec

from . import reference as ref

Computed = tuple[dict[str, float], dict[str, list[float]]]


def build(nets: Mapping[str, dict[str, Any]], shape: Sequence[int], dtype: torch.dtype, **settings: Any) -> Any:
    """A method with the listed networks; what is not listed is made small."""
    first = {"G": ("width", "down0.0.0.weight"), "D": ("critic_width", "encoder.0.0.weight")}
    given: dict[str, Any] = {"width": 1, "critic_width": 1, "dropout": 0.0} | settings
    for role, net in nets.items():
        setting, name = first[role]
        given[setting] = next(e["shape"][0] for e in net["state_dict"] if e["name"] == name)
    cls = methods.get("descargan")
    _, channels, height, width = shape
    method: Any = cls(cls.Config(**given), Spec(channels, height, width)).to(dtype)
    for role, net in nets.items():
        ref.fill(getattr(method, role), net)
    return method


def network_output(method: Any, role: str, x: Tensor, label: Any) -> dict[str, Tensor]:
    if role == "D":
        source, logits = method.D(x, label)
        return {"out0": source, "out1": logits}
    (c,) = {row.index(1) for row in label}  # one class per call, as in the published program
    return {"out0": method.G(x, c)}


def losses(setup: dict[str, Any], nets: dict[str, Any], dtype: torch.dtype) -> Computed:
    image = ref.image(ref.load_json("losses.json")["image_rule"], setup["image_seed"], setup["image"], dtype)
    n, (height, width) = len(image), image.shape[2:]
    uniform = np.random.default_rng([setup["noise_seed"], 7777]).uniform(0, 1, size=(n, 1, height, width))
    noise, label = torch.from_numpy(uniform).to(dtype), torch.tensor(setup["labels"])
    alpha = ref.alpha(setup["alpha_seed"], n, dtype)[label.argsort(stable=True)]
    weights = {k: float(setup[k]) for k in setup if k.startswith("lambda_")}
    common = weights | {"noise": setup["noise_gain"], "dropout": setup["dropout"]}

    method = build(nets, setup["image"], dtype, losses="mended", **common)
    x, e = method.prepare(image, label, noise)
    fakes = method.fakes(x, e)
    still = tuple(f.detach() for f in fakes)
    d, g = method.critic_loss(x, still, alpha), method.generator_loss(x, e, fakes)
    by_parameter = {role: norms(total, getattr(method, role)) for role, total in (("D", d.total), ("G", g.total))}
    every = torch.cat(x)
    penalties = [gradient_penalty(lambda y, c=c: method.D(y, c)[0], every, still[c], alpha) for c in (0, 1)]  # type: ignore[misc]
    with torch.no_grad():
        cls = [torch.nn.functional.cross_entropy(method.D(f, c)[1], torch.full((n,), c)) for c, f in enumerate(still)]
        same, other = method.same_and_other(x, still)
        back = [method.translate(other[c], c) for c in (0, 1)]
        method.config = replace(method.config, losses="released")
        slipped = method.generator_loss(x, e, still)
    values = {
        "d_real": d["real"] / weights["lambda_adv_d"],
        "d_fake": d["fake"] / weights["lambda_adv_d"],
        "d_cls": d["cls"] / weights["lambda_cls_d"],
        "d_gp": d["gp"] / weights["lambda_gp"],
        "d_gp_healthy": penalties[0],
        "d_gp_diseased": penalties[1],
        "d_total": d.total,
        "g_adv": g["adv"] / weights["lambda_adv_g"],
        "g_cls": g["cls"] / weights["lambda_cls_g"],
        "g_cls_healthy": cls[0],
        "g_cls_diseased": cls[1],
        "g_id": g["id"] / weights["lambda_id"],
        "g_rec": g["rec"] / weights["lambda_rec"],
        "g_total": g.total,
        "as_released_g_total": slipped.total,
    }
    for c, name in enumerate(("healthy", "diseased")):
        values[f"g_id_{name}"] = square(x[c] - same[c])
        values[f"g_rec_{name}"] = square(x[c] - back[c] - e[c])
        values[f"as_released_g_rec_{name}"] = sum((square(x[c] - back[c] - one) for one in e[c]), torch.zeros(())) / max(
            len(e[c]), 1
        )
    found = {k: v.item() for k, v in values.items()}
    assert found["d_gp"] == pytest.approx(found["d_gp_healthy"] + found["d_gp_diseased"], rel=1e-5)
    assert found["g_id"] == pytest.approx(found["g_id_healthy"] + found["g_id_diseased"], rel=1e-5)
    assert found["g_rec"] == pytest.approx(found["g_rec_healthy"] + found["g_rec_diseased"], rel=1e-5)
    return found | {
        f"{r.lower()}_grad_norm_before_clip": float(np.linalg.norm(v)) for r, v in by_parameter.items()
    }, by_parameter


def square(difference: Tensor) -> Tensor:
    """Mean of the squares; 0 of nothing."""
    return difference.square().mean() if len(difference) else torch.zeros(())


def norms(total: Tensor, network: torch.nn.Module) -> list[float]:
    gradients = torch.autograd.grad(total, list(network.parameters()), allow_unused=True, retain_graph=True)
    return [0.0 if g is None else float(g.double().norm()) for g in gradients]
