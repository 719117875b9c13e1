"""Brainomaly's fixtures: networks as HealthyGAN's, one plane out of the generator, no mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import reference as ref


def generator_outputs(method: Any, x: Tensor) -> dict[str, Tensor]:
    found = method.predict(x)
    return {"out0": method.G(x), "healed": found.healed, "score_mean": found.score}


def losses(setup: dict[str, Any], nets: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any, Any, dict[str, float]]:
    """Method, critic's and generator's losses, and their terms without weights under the listed names."""
    weights = {k: float(setup[k]) for k in ("lambda_gp", "lambda_id")}
    method = ref.build("brainomaly", nets, setup["image"], dtype, **weights)
    rule = ref.load_json("losses.json")["image_rule"]
    a, b = (ref.image(rule, setup[f"image_seed_{s}"], setup["image"], dtype) for s in "AB")
    ta, tb = method.translate(torch.cat([a, b])).split([len(a), len(b)])
    d = method.critic_loss(b, method.pool(ta), ref.alpha(setup["alpha_seed"], len(a), dtype))
    g = method.generator_loss(a, b, ta, tb)
    terms = {
        "d_real": d["real"].item(),
        "d_fake": d["fake"].item(),
        "d_gp": d["gp"].item() / weights["lambda_gp"],
        "g_fake": g["adv"].item(),
        "g_id": g["id"].item() / weights["lambda_id"],
    }
    return method, d, g, terms
