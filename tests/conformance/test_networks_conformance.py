"""Every network of manifest.json: parameters, outputs and read-outs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from healmap.methods.base import REDUCE, amplitude_map

from . import brainomaly, cyclegan, descargan
from . import reference as ref

pytestmark = pytest.mark.conformance

MANIFEST = ref.load_json("manifest.json")
NETWORKS = {net["name"]: net for net in MANIFEST.get("networks", [])}
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4}  # of the largest magnitude, README.md


def generator_outputs(family: str, method: Any, x: Tensor, label: Any) -> dict[str, Tensor]:
    if family == "descargan":
        return descargan.network_output(method, "G", x, label)
    if family == "cyclegan":
        return cyclegan.network_output(method, "G", x)
    if family == "brainomaly":
        return brainomaly.generator_outputs(method, x)
    if family == "healthygan":
        raw, predicted = method.G(x), method.predict(x)
        return {
            "out0": raw[:, :-1],
            "out1": raw[:, -1:],
            "mask": predicted.maps["mask"],
            "healed": predicted.healed,
            "score_mean": predicted.score,
        }
    c = ref.codes(label or [], method.planes, x.dtype)
    if family == "stargan":
        return {"out0": method.translate(x, c)}
    healed = method.translate(x, c)
    anomaly_map = amplitude_map(x, healed)
    score = REDUCE["max"](anomaly_map.flatten(1))
    if torch.equal(c, method.healthy_code(x).to(c)):
        predicted = method.predict(x)
        assert all(map(torch.equal, (predicted.healed, predicted.anomaly_map, predicted.score), (healed, anomaly_map, score)))
    # The reference's map is not halved.
    return {"out0": method.G(x, c), "healed": healed, "diff_mean_channels": 2 * anomaly_map, "score_max": 2 * score}


def critic_outputs(family: str, method: Any, x: Tensor, label: Any) -> dict[str, Tensor]:
    if family == "descargan":
        return descargan.network_output(method, "D", x, label)
    if family == "cyclegan":
        return cyclegan.network_output(method, "D", x)
    source, logits = method.D(x)
    assert torch.equal(source, method.D.source(x))
    return {"out0": method.D.features(x), "out1": source} if logits.shape[1] == 0 else {"out0": source, "out1": logits}


def check(name: str, got: Tensor, arrays: dict[str, np.ndarray], key: str, stride: int, tolerance: float) -> None:
    full = got.detach().double().numpy()
    saved = full[:, :, ::stride, ::stride] if full.ndim == 4 else full
    assert saved.shape == arrays[key].shape
    largest = np.abs(arrays[key]).max()
    assert np.abs(saved - arrays[key]).max() <= tolerance * largest, f"{name} {key}"
    stats = np.array([full.mean(), full.std(), full.min(), full.max(), np.abs(full).sum()])
    scale = np.array([largest] * 4 + [np.abs(full).sum()])
    assert (np.abs(stats - arrays[f"{key}/stats"]) <= tolerance * scale).all(), f"{name} {key}/stats"


# Channels-last is how training runs in float32; in float64 one layout is enough.
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.float64, torch.contiguous_format), (torch.float32, torch.channels_last)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_conformance_of_network(name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    net = NETWORKS[name]
    family, role = ref.family_and_role(name)
    ref.require_method(family)
    inputs = net["inputs"]
    if "score_max" in str(net["outputs"]):
        method = ref.build(family, {role: net}, inputs["image"], dtype, score="max")
    else:
        method = ref.build(family, {role: net}, inputs["image"], dtype)
    method = method.to(memory_format=layout)
    x = ref.image(MANIFEST["image_rule"], net["seed"], inputs["image"], dtype).to(memory_format=layout)
    arrays = ref.load_arrays(f"{name}.npz")
    # With norm layers "eval" means running statistics, which we do not keep; "train" means those of the image.
    mode = "train/" if any(e["kind"] == "running_mean" for e in net["state_dict"]) else "eval/"
    keys = [k for k in arrays if k.startswith(mode) and "/after/" not in k and not k.endswith("stats")]
    assert keys
    with torch.no_grad():
        compute = generator_outputs if role == "G" else critic_outputs
        outputs = compute(family, method, x, inputs.get("label"))
    for key in keys:
        check(name, outputs[key.removeprefix(mode)], arrays, key, inputs.get("stride_saved", 1), TOLERANCE[dtype])
    if role == "G" and dtype == torch.float32 and (family != "descargan" or len(x) == 1):  # its norm sees the whole call
        method.eval()
        with torch.no_grad():
            again = generator_outputs(family, method, x, inputs["label"])
        assert torch.equal(again["out0"], outputs["out0"]), "inference must use the image's own statistics as well"


@pytest.mark.parametrize("name", [n for n in NETWORKS if n.startswith("descargan")])
def test_conformance_of_running_statistics(name: str) -> None:
    """How DeScarGAN's buffers load, move in training and serve at inference where they are asked to."""
    net, arrays = NETWORKS[name], ref.load_arrays(f"{name}.npz")
    role, inputs = ref.family_and_role(name)[1], net["inputs"]
    ref.require_method("descargan")
    method = ref.build("descargan", {role: net}, inputs["image"], torch.float64, statistics="running")
    x = ref.image(MANIFEST["image_rule"], net["seed"], inputs["image"], torch.float64)
    with torch.no_grad():
        outputs = descargan.network_output(method.eval(), role, x, inputs["label"])
        for key in (k for k in arrays if k.startswith("eval/") and not k.endswith("stats")):
            check(name, outputs[key.removeprefix("eval/")], arrays, key, inputs.get("stride_saved", 1), 1e-6)
        if "eval/encoder_stats" in arrays:
            h = method.D.features(x)
            found = [
                f(h).item() for f in (torch.mean, lambda t: t.std(correction=0), torch.min, torch.max, lambda t: t.abs().sum())
            ]
            np.testing.assert_allclose(found, arrays["eval/encoder_stats"], rtol=1e-6)
        descargan.network_output(method.train(), role, x, inputs["label"])
    state = getattr(method, role).state_dict()
    for key in (k for k in arrays if k.startswith("train/after/")):
        np.testing.assert_allclose(state[key.removeprefix("train/after/")].numpy(), arrays[key], rtol=1e-6, atol=1e-9)
