"""Weights of the published programs: in as they were saved, out as the programs' own outputs; and everything else refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from healmap import methods
from healmap.api import import_weights
from healmap.detection.predictor import Predictor
from healmap.errors import CheckpointError, ConfigError, UsageError
from healmap.methods import published, weights
from healmap.methods.base import Method
from healmap.networks.norm import InstanceNorm
from healmap.training import checkpoint
from healmap.training.folder import judge
from healmap.types import Domains
from tests.conformance import reference as ref
from tests.conformance import test_networks_conformance as networks

State = dict[str, Tensor]
PROGRAMS = list(published.PROGRAMS)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For files of some hundred MB, which pytest would keep for three sessions."""
    yield tmp_path
    shutil.rmtree(tmp_path)


# Fixtures: filled by the rule, saved as the program saves them, imported, compared


def names_of(fixture: str) -> set[str]:
    return {e["name"] for e in networks.NETWORKS[fixture]["state_dict"]}


def planes(generator: str) -> int:
    net = networks.NETWORKS[generator]
    first = next(e["shape"] for e in net["state_dict"] if len(e["shape"]) == 4)
    return first[1] - net["inputs"]["image"][1] if ref.family_and_role(generator)[0] in ref.LABELLED else 0


def critic_for(generator: str) -> str | None:
    """A critic of the same family, image and number of domains, so that both may be one training's."""
    family, _ = ref.family_and_role(generator)
    side = networks.NETWORKS[generator]["inputs"]["image"][1:]
    for name, net in networks.NETWORKS.items():
        head = [e["shape"][0] for e in net["state_dict"] if e["name"] == "conv2.weight"] or [planes(generator)]
        if ref.family_and_role(name) == (family, "D") and net["inputs"]["image"][1:] == side and head == [planes(generator)]:
            return name
    return None


GENERATORS = [n for n in networks.NETWORKS if ref.family_and_role(n)[1] == "G"]
# Critics weigh up to 180 MB: one of each family is enough.
CRITICS = {ref.family_and_role(g)[0]: (g, critic_for(g)) for g in reversed(GENERATORS) if critic_for(g)}


def save(fixture: str, path: Path, prefix: str) -> Path:
    """In the precision of the program, counters as integers."""
    net = networks.NETWORKS[fixture]
    kinds = {e["name"]: torch.int64 if e["kind"] == "num_batches_tracked" else torch.float32 for e in net["state_dict"]}
    values = {e["name"]: torch.from_numpy(ref.entry_value(net, e)) for e in net["state_dict"]}
    torch.save(OrderedDict((prefix + name, value.to(kinds[name])) for name, value in values.items()), path)
    return path


def compare(method: Any, fixture: str) -> None:
    family, role = ref.family_and_role(fixture)
    net, arrays = networks.NETWORKS[fixture], ref.load_arrays(f"{fixture}.npz")
    x = ref.image(networks.MANIFEST["image_rule"], net["seed"], net["inputs"]["image"], torch.float32)
    mode = "train/" if any(e["kind"] == "running_mean" for e in net["state_dict"]) else "eval/"
    method.train(mode == "train/" and len(x) > 1)  # batch norm sees the whole call in training, each image at inference
    compute = networks.generator_outputs if role == "G" else networks.critic_outputs
    with torch.no_grad():
        outputs = compute(family, method, x, net["inputs"]["label"])
    stride, tolerance = net["inputs"].get("stride_saved", 1), networks.TOLERANCE[torch.float32]
    for key, output in ((k, o) for k, o in ((mode + k, o) for k, o in outputs.items()) if k in arrays):
        networks.check(fixture, output, arrays, key, stride, tolerance)
    assert f"{mode}out0" in arrays


@pytest.mark.conformance
@pytest.mark.parametrize("generator", GENERATORS)
def test_imported_weights_give_the_outputs_of_the_program(generator: str, folder: Path) -> None:
    family, _ = ref.family_and_role(generator)
    program, critic = ref.require_method(family), dict([CRITICS.get(family, ("", None))]).get(generator)
    prefix = "module." if family == "descargan" else ""  # it saves what DataParallel wraps
    file = save(generator, folder / "200000-G.ckpt", prefix)
    options: dict[str, Any] = {"size": networks.NETWORKS[generator]["inputs"]["image"][2]}
    if critic is None:
        has = {field.name for field in fields(methods.get(program).Config)}
        options["settings"] = [f"method.{n}=1" for n in ("critic_width", "critic_layers") if n in has]  # need not be large
    else:
        options["critic"] = save(critic, folder / "200000-D.ckpt", prefix)
        if names_of(critic) & {"conv2.weight", "linearclass.1.weight"}:
            del options["size"]  # these tell it
    if planes(generator) > 2:
        options["attributes"] = [f"attribute {k}" for k in range(planes(generator))]
    run = import_weights(program, file, folder / "run", **options)
    method = Predictor.load(run, device="cpu").method
    assert method.spec.height == networks.NETWORKS[generator]["inputs"]["image"][2]
    compare(method, generator)
    if critic is not None:
        compare(method, critic)


# The same with networks of a few channels: forms of files, sizes, refusals


def toy(program: str, **settings: Any) -> Method:
    """The program's networks, small and filled with random numbers."""
    cls = methods.get(program)
    config, spec = cls.tiny()
    torch.manual_seed(1)
    method = cls(replace(config, **settings), spec)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.2)
    return method


def saved_state(network: nn.Module) -> State:
    """As a published network has it: norm layers that keep none here have running statistics there."""
    state = dict(network.state_dict())
    for name, part in network.named_modules():
        if isinstance(part, InstanceNorm):
            width = part.channels
            state |= {f"{name}.running_mean": torch.randn(width), f"{name}.running_var": torch.rand(width)}
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def files_of(method: Method, program: str, folder: Path) -> dict[str, Path]:
    """A file for each network, by the name of ``import_weights``' argument."""
    found = {}
    for role, network in published.get(program).networks.items():
        found[role.replace("-", "_")] = path = folder / f"{role}.ckpt"
        torch.save(saved_state(getattr(method, network.attribute)), path)
    return found


def imported(program: str, files: dict[str, Path], out: Path, **options: Any) -> tuple[Method, dict[str, Any]]:
    files = dict(files)
    run = import_weights(program, files.pop("generator"), out, **files, **options)
    return weights.load(run / "weights" / "best.safetensors")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_whole_training_comes_in_as_it_was(program: str, tmp_path: Path) -> None:
    source = toy(program)
    method, card = imported(program, files_of(source, program, tmp_path), tmp_path / "run", size=source.spec.height)
    assert card["imported"]["untrained"] == []
    ours, theirs = weights.kept(method), weights.kept(source)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = torch.rand(2, source.spec.channels, source.spec.height, source.spec.width) * 2 - 1
    with torch.no_grad():
        a, b = method.predict(x), source.eval().predict(x)
    torch.testing.assert_close(a.healed, b.healed, rtol=0, atol=0)
    for name in ("last", "best"):
        assert (tmp_path / "run" / "weights" / f"{name}.safetensors").is_file()


@pytest.mark.parametrize("program", PROGRAMS)
def test_marks_tell_the_networks_of_a_program_apart(program: str) -> None:
    method, entry = toy(program), published.get(program)
    for role, network in entry.networks.items():
        for other, another in entry.networks.items():
            alike = ("critic" in role) == ("critic" in other)
            assert (network.mark in getattr(method, another.attribute).state_dict()) == alike


def test_every_program_of_the_fixtures_is_known() -> None:
    assert set(PROGRAMS) == set(ref.METHOD_OF.values())


@pytest.mark.parametrize(("width", "blocks", "layers"), [(3, 2, 3), (5, 4, 2)])
@pytest.mark.parametrize("program", ["stargan", "healthygan", "cyclegan"])
def test_sizes_are_read_from_shapes(program: str, width: int, blocks: int, layers: int, tmp_path: Path) -> None:
    source = toy(program, width=width, blocks=blocks, critic_width=width + 1, critic_layers=layers)
    method, card = imported(program, files_of(source, program, tmp_path), tmp_path / "run", size=32)
    read = {name: getattr(method.config, name) for name in ("width", "blocks", "critic_width", "critic_layers")}
    assert read == {"width": width, "blocks": blocks, "critic_width": width + 1, "critic_layers": layers}
    assert card["preprocessing"]["settings"]["channels"] == source.spec.channels


def wrapped(state: State, how: str) -> Any:
    match how:
        case "ordered":
            return OrderedDict(state)
        case "parallel":
            return {f"module.{k}": v for k, v in state.items()}
        case "compiled":
            return {f"module._orig_mod.{k}": v for k, v in state.items()}
        case "half":
            return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        case "double":
            return {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
        case "parameters":
            return {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}
    whole = {"epoch": 3, "state_dict": state, "optimizer": optimiser}
    critic = {"conv1.weight": torch.zeros(1, 1, 3, 3)}
    return {"plain": state, "epoch": whole, "both": {"G": state, "D": critic}, "deep": {"model": {"G": whole}}}[how]


FORMS = ["plain", "ordered", "parallel", "compiled", "half", "double", "parameters", "epoch", "both", "deep"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("how", FORMS)
def test_forms_in_which_a_state_dict_is_saved(how: str, legacy: bool, tmp_path: Path) -> None:
    source = toy("healthygan")
    torch.save(wrapped(saved_state(source.G), how), tmp_path / "G.ckpt", _use_new_zipfile_serialization=not legacy)
    method, _ = imported("healthygan", {"generator": tmp_path / "G.ckpt"}, tmp_path / "run", **SMALL)
    expected = {k: v.half().float() if how == "half" else v for k, v in source.G.state_dict().items()}  # type: ignore[operator]
    assert all(torch.equal(v, expected[k]) for k, v in method.G.state_dict().items())  # type: ignore[operator]


def test_one_file_with_several_networks_serves_each(tmp_path: Path) -> None:
    source = toy("stargan")
    torch.save({"G": saved_state(source.G), "D": saved_state(source.D)}, tmp_path / "both.ckpt")  # type: ignore[arg-type]
    files = dict.fromkeys(("generator", "critic"), tmp_path / "both.ckpt")
    method, card = imported("stargan", files, tmp_path / "run")
    assert card["imported"]["untrained"] == []
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in method.state_dict().items())


SMALL: dict[str, Any] = {"size": 32, "settings": ["method.critic_width=2", "method.critic_layers=2"]}


# Domains


def conditional(program: str, channels: int, count: int, folder: Path, *, critic: bool = False) -> dict[str, Path]:
    """Files of a StarGAN or Fixed-Point GAN with so many label planes."""
    cls = methods.get(program)
    config, spec = cls.tiny()
    names, encoding = tuple(f"d{k}" for k in range(max(2, count))), "binary" if count == 1 else "one-hot"
    config, spec = replace(config, encoding=encoding), replace(spec, channels=channels, domains=Domains(names))
    files = files_of(cls(config, spec), program, folder)
    return files if critic else {"generator": files["generator"]}


@pytest.mark.parametrize(
    ("count", "options", "domains", "encoding"),
    [
        (1, {}, Domains(), "binary"),
        (2, {}, Domains(), "one-hot"),
        (1, {"domains": ["no", "yes"]}, Domains(("no", "yes")), "binary"),
        (3, {"domains": ["healthy", "a", "b"]}, Domains(("healthy", "a", "b")), "one-hot"),
        (3, {"attributes": ["hair", "hat", "age"]}, Domains(("hair", "hat", "age"), exclusive=False), "multi-hot"),
        (1, {"attributes": ["hat"]}, Domains(("hat",), exclusive=False), "multi-hot"),
    ],
)
def test_domains_by_label_planes(count: int, options: dict[str, Any], domains: Domains, encoding: str, tmp_path: Path) -> None:
    method, card = imported("stargan", conditional("stargan", 3, count, tmp_path), tmp_path / "run", **SMALL, **options)
    assert method.spec.domains == domains
    assert method.config.encoding == encoding
    assert card["data"]["channels"] == 3
    label = torch.zeros(1, count) if not domains.exclusive else torch.zeros(1, dtype=torch.int64)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.translate_to(x, label), method.predict(x).healed)  # type: ignore[arg-type]


def test_a_file_that_may_be_of_another_program_is_noted(tmp_path: Path) -> None:
    source = toy("brainomaly", pool=0)
    colour = type(source)(source.config, replace(source.spec, channels=3))
    torch.save(saved_state(colour.G), tmp_path / "G.ckpt")  # type: ignore[arg-type]
    method, _ = imported("stargan", {"generator": tmp_path / "G.ckpt"}, tmp_path / "run", **SMALL)
    assert (method.spec.channels, method.planes) == (1, 2), "three channels in, one out: nothing in the shapes forbids it"
    notes = json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"]
    assert any("of 3 channels, this file of 1: make sure that it is of stargan" in note for note in notes)


def test_the_critic_tells_the_image_size(tmp_path: Path) -> None:
    files = conditional("fixed-point-gan", 1, 2, tmp_path, critic=True)
    method, card = imported("fixed-point-gan", files, tmp_path / "run")
    assert (method.spec.height, card["data"]["size"]) == (32, 32)
    with pytest.raises(CheckpointError, match=r"'conv2\.weight'.*image size"):
        imported("fixed-point-gan", files, tmp_path / "other", size=64)


# What no file brought


def test_what_is_missing_is_initialised_with_a_stated_seed_and_said(tmp_path: Path) -> None:
    files = conditional("stargan", 3, 2, tmp_path)
    before = torch.get_rng_state()
    found = [imported("stargan", files, tmp_path / name, **SMALL) for name in ("a", "b")]
    assert torch.equal(torch.get_rng_state(), before), "an import draws no random number of the caller's"
    (first, card), (second, _) = found
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    assert (card["imported"]["untrained"], card["imported"]["seed"], card["step"]) == (["D"], 0, 0)
    notes = json.loads((tmp_path / "a" / "manifest.json").read_text())["notes"]
    assert any("untrained" in note and "D" in note and "seed 0" in note for note in notes)
    assert json.loads((tmp_path / "a" / "imported.json").read_text()) == card["imported"]


def test_an_imported_run_is_not_resumed(tmp_path: Path) -> None:
    imported("stargan", conditional("stargan", 3, 2, tmp_path), tmp_path / "run", **SMALL)
    assert not checkpoint.exists(tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(UsageError):
            judge(tmp_path / "run", resume=resume)


def test_descargan_without_its_classifier_scores_by_the_map(tmp_path: Path) -> None:
    source = toy("descargan")
    files = files_of(source, "descargan", tmp_path)
    alone = {"generator": files["generator"]}
    method, _ = imported("descargan", files, tmp_path / "whole", size=32)
    assert method.config.score == "class"
    method, _ = imported("descargan", alone, tmp_path / "run", size=32, settings=["method.critic_width=2"])
    assert method.config.score == "map-mean"
    with pytest.raises(ConfigError, match=r"method\.score=class needs the critic"):
        imported("descargan", alone, tmp_path / "no", size=32, settings=["method.score=class"])


def test_images_are_prepared_as_the_program_does_unless_told_otherwise(tmp_path: Path) -> None:
    files = conditional("stargan", 3, 2, tmp_path)
    _, card = imported("stargan", files, tmp_path / "run", **SMALL)
    prepared = card["preprocessing"]["settings"]
    assert (prepared["normalisation"], prepared["window"], prepared["fit"]) == ("window", [0.0, 255.0], "crop")
    options = {**SMALL, "settings": [*SMALL["settings"], "data.normalisation=percentile", "data.fit=pad"]}
    _, card = imported("stargan", files, tmp_path / "other", **options)
    assert (card["preprocessing"]["settings"]["normalisation"], card["data"]["fit"]) == ("percentile", "pad")


# Refusals


def changed(how: str, state: State) -> Any:
    """A generator's state dict with one fault."""
    weight = "main.3.weight"
    match how:
        case "missing":
            del state[weight]
        case "extra":
            state["main.99.weight"] = torch.zeros(3)
        case "shape":
            state[weight] = state[weight][:, :, :3, :3].clone()
        case "nan":
            state[weight][0, 0, 0, 0] = torch.nan
        case "integers":
            state[weight] = state[weight].long()
        case "statistics":  # of a layer that is no norm
            state["main.3.running_mean"] = torch.zeros(8)
        case "narrow":
            state["main.0.weight"] = state["main.0.weight"][:0]
        case "blocks":
            state["main.9.main.0.weight"] = state.pop("main.9.main.0.weight").unsqueeze(0)
        case "empty":
            return {}
        case "no tensors":
            return {"epoch": 3, "name": "a"}
        case "list":
            return list(state.values())
        case "two":
            return {"G": state, "ema": dict(state)}
        case "critic":
            return saved_state(toy("stargan").D)  # type: ignore[arg-type]
        case "cyclegan":
            return saved_state(toy("cyclegan").to_healthy)  # type: ignore[arg-type]
        case "other":
            return nn.Linear(2, 3).state_dict()
        case "healthygan":
            return saved_state(toy("healthygan").G)  # type: ignore[arg-type]
        case "two channels":
            files = methods.get("stargan")
            config, spec = files.tiny()
            return saved_state(files(config, replace(spec, channels=2)).G)  # type: ignore[arg-type]
        case "expanded":  # some bytes that claim a thousand million channels
            state["main.0.weight"] = torch.zeros(1, 1, 1, 1).expand(10**9, 2, 7, 7)
        case "huge":  # a width that a small file holds, and a network of many GB
            return {
                "main.0.weight": torch.zeros(200_000, 2, 1, 1), "main.16.weight": torch.zeros(1, 1, 1, 1),
                "main.9.main.0.weight": torch.zeros(1),
            }  # fmt: skip
    return state


MESSAGES = {
    "missing": "missing: 'main.3.weight'",
    "extra": "unknown: 'main.99.weight'",
    "shape": r"another shape: 'main.3.weight' \(\(8, 4, 3, 3\), not \(8, 4, 4, 4\)\)",
    "nan": "'main.3.weight' holds NaN",
    "integers": "'main.3.weight' holds torch.int64",
    "statistics": "unknown: 'main.3.running_mean'",
    "narrow": r"'main.0.weight' has shape \(0, 2, 7, 7\)",
    "blocks": "another shape: 'main.9.main.0.weight'",
    "empty": "no state dict",
    "no tensors": "no state dict",
    "list": "no state dict",
    "two": "2 networks that may be the generator",
    "critic": "no generator of stargan: tensor 'main.9.main.0.weight' is missing .* a critic of stargan",
    "cyclegan": "no generator of stargan: .* a generator of cyclegan",
    "other": "no generator of stargan: .* it holds 'bias', 'weight'",
    "healthygan": "takes 1 channels and gives 2: none are left for label planes",
    "two channels": "images of 2 channels",
    "expanded": "claim more numbers than the file holds",
    "huge": "missing: ",
}


@pytest.mark.parametrize("how", MESSAGES)
def test_other_weights_are_refused_in_one_line_before_anything_is_written(how: str, tmp_path: Path) -> None:
    torch.save(changed(how, saved_state(toy("stargan").G)), tmp_path / "G.ckpt")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=MESSAGES[how]) as error:
        imported("stargan", {"generator": tmp_path / "G.ckpt"}, tmp_path / "run", **SMALL)
    assert "\n" not in str(error.value)
    assert "G.ckpt" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_generator_and_critic_of_different_trainings_are_refused(tmp_path: Path) -> None:
    files = conditional("stargan", 3, 3, tmp_path, critic=True)
    (tmp_path / "other").mkdir()
    files["critic"] = conditional("stargan", 3, 2, tmp_path / "other", critic=True)["critic"]
    with pytest.raises(CheckpointError, match=r"another shape: 'conv2\.weight'"):
        imported("stargan", files, tmp_path / "run", domains=["healthy", "a", "b"])


class Canary:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (os.environ["HEALMAP_CANARY"],)


def hostile(how: str, path: Path) -> None:
    match how:
        case "code":
            torch.save({"main.0.weight": torch.zeros(1), "x": Canary()}, path)
        case "legacy code":
            torch.save({"x": Canary()}, path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(Canary()))
        case "module":
            torch.save(nn.Linear(2, 2), path)
        case "text":
            path.write_text("these are no weights\n")
        case "empty":
            path.write_bytes(b"")
        case "cut":
            torch.save(saved_state(toy("stargan").G), path)  # type: ignore[arg-type]
            path.write_bytes(path.read_bytes()[:5000])
        case "folder":
            path.mkdir()
        case "bomb":  # 64 MB of zeros in some kB
            whole = io.BytesIO()
            torch.save({"x": torch.zeros(2**24)}, whole)
            with zipfile.ZipFile(whole) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for entry in given.namelist():
                    packed.writestr(entry, given.read(entry))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["code", "legacy code", "pickle", "module", "text", "empty", "cut", "folder", "bomb", "absent"])
def test_no_file_runs_code_or_brings_a_traceback(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALMAP_CANARY", str(tmp_path / "canary"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    hostile(how, tmp_path / "G.ckpt")
    what = "no such file.*-G.ckpt" if how in ("folder", "absent") else "compressed inside" if how == "bomb" else "no torch.save"
    with pytest.raises(CheckpointError, match=what) as error:
        imported("stargan", {"generator": tmp_path / "G.ckpt"}, tmp_path / "run", **SMALL)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": None}, r"do not tell the image size \(--size\): give --size; published: 128. --critic may tell it"),
        ({"size": 30}, "multiple of 4"),
        ({"domains": ["healthy", "a", "b"]}, r"2 label planes.*\(--domains\): give 2"),
        ({"domains": ["healthy", "healthy"]}, "give 2 different names"),
        ({"attributes": ["hat"]}, r"\(--attributes\): give 2"),
        ({"domains": ["a", "b"], "attributes": ["a", "b"]}, "exclude each other"),
        ({"reverse": "G.ckpt"}, r"stargan has no reverse \(--reverse\): it has: generator, critic"),
        ({"settings": ["method.width=8"]}, r"method.width=8 contradicts the files, which say 4 \(--set\)"),
        ({"settings": ["data.size=64"]}, "data.size=64 contradicts"),
        ({"settings": ["method.encoding=binary"]}, "method.encoding=binary contradicts"),
        ({"settings": ["data.normalisation=zscore"]}, "fitted on training images"),
        ({"settings": ["method.wdith=8"]}, "did you mean 'width'"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = conditional("stargan", 3, 2, tmp_path)
    asked = {**SMALL, **options, "settings": [*SMALL["settings"], *options.get("settings", [])]}
    with pytest.raises(ConfigError, match=message):
        imported("stargan", files, tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_planes_without_names_and_unknown_programs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 label planes without names.*--attributes"):
        imported("stargan", conditional("stargan", 3, 3, tmp_path), tmp_path / "run", **SMALL)
    with pytest.raises(ConfigError, match="did you mean 'stargan'"):
        import_weights("star-gan", tmp_path / "G.ckpt", tmp_path / "run")
    with pytest.raises(ConfigError, match=re.escape("known are stargan, ")):
        import_weights("restoration", tmp_path / "G.ckpt", tmp_path / "run")


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        imported("stargan", conditional("stargan", 3, 2, tmp_path), tmp_path / "run", **SMALL)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]
