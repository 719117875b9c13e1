"""Backbones: whose weights they read and refuse, that nothing moves them, and how one learns by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import toys
from safetensors.torch import save_file
from torch import Tensor

from healmap.config import from_plain, override, to_plain
from healmap.errors import ConfigError, Interrupted
from healmap.methods import pretext, weights
from healmap.methods.backbone import IMAGENET, Backbone, BackboneConfig
from healmap.methods.base import Optimisers
from healmap.methods.corruption import Lesions
from healmap.networks.densenet import densenet169
from healmap.networks.resnet import resnet18
from healmap.training import checkpoint, train_run
from healmap.training.loop import Loop
from healmap.types import Batch

NAMES = [*IMAGENET, "filters", "self"]


def numbers(name: str, **options: int) -> dict[str, Tensor]:
    """Random tensors under the public names, all of one value each, which files store small."""
    with torch.device("meta"):
        shapes = IMAGENET[name](**options).state_dict()
    return {
        k: (torch.randn(()).abs() if v.is_floating_point() else torch.zeros((), dtype=v.dtype)).expand(v.shape)
        for k, v in shapes.items()
    }


def written(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def backbone(name: str, path: Path | str = "", channels: int = 1, **settings: object) -> Backbone:
    return Backbone(BackboneConfig(name=name, weights=str(path), **settings), channels)


# Weights that the user names


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_public_file_loads_and_its_features_are_that_networks(tmp_path, suffix):
    torch.manual_seed(0)
    whole = resnet18().eval()
    for tensor in whole.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    found = backbone("resnet18", written(whole.state_dict(), tmp_path / f"resnet18{suffix}"))
    assert found.begin() == []
    grey = torch.rand(2, 1, 32, 48) * 2 - 1
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = whole.stages(((grey.repeat(1, 3, 1, 1) + 1) / 2 - mean) / deviation)[:3]
    torch.testing.assert_close(found.stages(grey), expected)
    torch.testing.assert_close(found.stages(grey.repeat(1, 3, 1, 1)), expected)
    torch.testing.assert_close(found.stages(grey, 2), expected[:2])
    assert [tuple(m.shape) for m in expected] == [
        (2, c, 32 // s, 48 // s) for c, s in zip(found.channels, found.strides, strict=True)
    ]


@pytest.mark.parametrize("name", IMAGENET)
def test_every_architecture_reads_a_file_of_its_own(tmp_path, name):
    state = numbers(name)
    found = backbone(name, written(state, tmp_path / "own.pth"))
    found.begin()
    assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in found.network.state_dict().items())
    assert found.strides == (4, 8, 16)


def test_older_files_load_without_counters_and_in_the_older_spelling(tmp_path):
    import re

    state = {k: v for k, v in numbers("densenet169").items() if not k.endswith("num_batches_tracked")}
    old = {re.sub(r"(denselayer\d+)\.(norm|conv)(\d)", r"\1.\2.\3", k): v for k, v in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    found = backbone("densenet169", written(old, tmp_path / "old.pth"))
    found.begin()
    loaded = found.network.state_dict()
    assert torch.equal(loaded["features.denseblock3.denselayer32.conv2.weight"],
                       state["features.denseblock3.denselayer32.conv2.weight"])  # fmt: skip


def refused(name: str, path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        backbone(name, path).begin()
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    assert len(text) < 700
    return text


def test_lacking_unknown_and_misshapen_tensors_are_named(tmp_path):
    state = numbers("resnet18")
    del state["layer2.0.conv1.weight"]
    assert "lacks 'layer2.0.conv1.weight' (" in refused("resnet18", written(state, tmp_path / "a.pth"))
    state["extra.weight"] = torch.zeros(3)
    text = refused("resnet18", written(state, tmp_path / "b.pth"))
    assert "lacks 'layer2.0.conv1.weight'; has unknown 'extra.weight'" in text
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    assert "has misshapen 'conv1.weight 64x1x7x7 for 64x3x7x7'" in refused("resnet18", written(state, tmp_path / "c.pth"))
    many = {k: v for k, v in state.items() if not k.startswith("layer1")}
    assert "'layer1.0.conv1.weight', 'layer1.0.bn1.weight', 'layer1.0.bn1.bias' and 18 more" in refused(
        "resnet18", written(many, tmp_path / "d.pth")
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("layer4.0.conv1.weight", None), "lacks 'layer4.0.conv1.weight'"),
        (("layer4.0.conv9.weight", (1,)), "has unknown 'layer4.0.conv9.weight'"),
        (("layer4.0.conv1.weight", (512, 256, 1, 1)), "has misshapen 'layer4.0.conv1.weight 512x256x1x1 for 512x256x3x3'"),
        (("fc.bias", None), "lacks 'fc.bias'"),
        (("fc.extra", (1,)), "has unknown 'fc.extra'"),
        (("fc.weight", (1000, 64)), "has misshapen 'fc.weight 1000x64 for 1000x512'"),
        (("fc.bias", (999,)), "has misshapen 'fc.bias 999 for 1000'"),
    ],
)
def test_what_is_not_read_is_accounted_for_as_well(tmp_path, change, text):
    state, (name, shape) = numbers("resnet18"), change
    if shape is None:
        del state[name]
    else:
        state[name] = torch.zeros(shape)
    assert text in refused("resnet18", written(state, tmp_path / "a.pth"))


def test_numbers_that_are_not_read_have_to_be_finite_as_well(tmp_path):
    state = numbers("resnet18") | {"fc.bias": torch.full((1000,), float("inf"))}
    assert "NaN or infinity in 'fc.bias'" in refused("resnet18", written(state, tmp_path / "a.pth"))


def test_weights_of_another_architecture_are_called_by_their_name(tmp_path):
    fifty = written(numbers("resnet50"), tmp_path / "mine.pth")
    assert "these are resnet50 weights: set method.backbone.name=resnet50" in refused("resnet18", fifty)
    assert "these are resnet50 weights" in refused("wide_resnet50_2", fifty)
    assert "these are resnet50 weights" in refused("densenet169", fifty)
    other_head = written(numbers("resnet18", classes=2), tmp_path / "two.pth")
    assert "these are resnet18 weights" in refused("resnet50", other_head)
    backbone("resnet18", other_head).begin()  # a head for other classes
    cut = {k: v for k, v in numbers("resnet18").items() if not k.startswith(("layer4", "fc"))}
    backbone("resnet18", written(cut, tmp_path / "cut.pth")).begin()


@pytest.mark.parametrize("fault", ["nan", "integers", "long name", "list", "junk", "wrapped", "code", "sparse", "meta", "gone"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_other_files_are_refused_and_run_no_code(tmp_path, fault, suffix):
    path, state = tmp_path / f"weights{suffix}", numbers("resnet18")
    canary = tmp_path / "canary"

    class Code:
        def __reduce__(self):
            return (Path.touch, (canary,))

    if fault == "nan":
        written(state | {"bn1.bias": torch.full((64,), float("nan"))}, path)
    elif fault == "integers":
        written(state | {"bn1.bias": torch.zeros(64, dtype=torch.int64)}, path)
    elif fault == "long name":
        written(state | {"x" * 100_000: torch.zeros(1)}, path)
    elif fault == "junk":
        path.write_bytes(b"no tensors here")
    elif fault != "gone":
        other = {"code": Code(), "sparse": torch.eye(64)[0].to_sparse(), "meta": torch.zeros(64, device="meta")}
        kinds = {name: state | {"bn1.bias": value} for name, value in other.items()}
        torch.save({"list": [state], "wrapped": {"state_dict": state}, **kinds}[fault], path)
    text = refused("resnet18", path)
    if fault == "nan":
        assert "NaN or infinity in 'bn1.bias'" in text
    assert not canary.exists()


def test_without_a_file_the_ways_out_are_named():
    with pytest.raises(ConfigError) as caught:
        backbone("resnet18").begin()
    for way in ("method.backbone.weights=FILE", "method.backbone.name=filters", "method.backbone.name=self"):
        assert way in str(caught.value)
    assert backbone("filters").begin() == []


def test_settings_that_cannot_work():
    with pytest.raises(ConfigError, match="takes no weights"):
        backbone("filters", "weights.pth")
    with pytest.raises(ConfigError, match="1 or 3 channels, not 4"):
        backbone("resnet18", channels=4)
    with pytest.raises(ConfigError, match="self_steps must be positive"):
        BackboneConfig(name="self", self_steps=0)
    for height, width, hint in [(40, 64, "48 pixels|32 pixels"), (64, 16, "32 pixels"), (100, 100, "96 pixels")]:
        with pytest.raises(ConfigError, match=hint):
            backbone("filters").check_size(height, width)
    backbone("filters").check_size(224, 32)
    config = BackboneConfig(name="self", self_task="rotation")
    assert from_plain(BackboneConfig, json.loads(json.dumps(to_plain(config)))) == config
    changed = override(BackboneConfig(name="filters"), ["weights=a.pth", "name=resnet50"])  # in any order
    assert (changed.name, changed.weights) == ("resnet50", "a.pth")


# What holds for all of them


@pytest.mark.parametrize("name", NAMES)
def test_built_without_memory_or_file(name):
    with torch.device("meta"):
        found = backbone(name, "nowhere.pth" if name in IMAGENET else "")
    assert all(t.is_meta for t in found.state_dict().values())
    assert len(found.channels) == len(found.strides) == 3


@pytest.mark.parametrize("name", ["resnet18", "filters", "self"])
def test_nothing_moves_it_and_an_image_is_alone(name):
    torch.manual_seed(0)
    found = backbone(name, channels=3).train()
    assert not any(module.training for module in found.modules())
    assert not any(p.requires_grad for p in found.parameters())
    before = {k: v.clone() for k, v in found.state_dict().items()}
    image = torch.rand(4, 3, 32, 32, requires_grad=True)
    maps = found.stages(image)
    assert not any(m.requires_grad for m in maps)
    for whole, alone in zip(maps, found.stages(image[2:3]), strict=True):
        torch.testing.assert_close(whole[2:3], alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in found.state_dict().items())
    last = found.to(memory_format=torch.channels_last).stages(image.contiguous(memory_format=torch.channels_last))
    for a, b in zip(maps, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(maps, found.stages(image), strict=True):
            torch.testing.assert_close(a, b.float(), rtol=0.1, atol=0.1 * float(a.abs().max()))


# One that learns


def healthy(count: int = 8) -> Iterator[Batch]:
    """Bright ellipses on black, upright, each a little different."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    while True:
        wide, tall = torch.rand(2, count, 1, 1) * 0.2 + torch.tensor([0.4, 0.7]).view(2, 1, 1, 1)
        level = 0.6 + 0.4 * y  # brighter below: which way is up can be seen
        yield Batch(image=torch.where((x / wide) ** 2 + (y / tall) ** 2 < 1, level, torch.tensor(-1.0)).unsqueeze(1))


@torch.no_grad()
def score(found: Backbone) -> float:
    """The task's loss of the frozen network, on images and draws that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return found.pretext.losses(found.network, next(healthy(32)).image).total.item()


@pytest.mark.parametrize(("task", "left"), [("restoration", 0.85), ("rotation", 0.5)])
def test_an_encoder_learns_its_task_and_is_frozen_again(task, left):
    torch.manual_seed(0)
    found = backbone("self", self_task=task, self_steps=60, self_width=8, self_lr=3e-3)
    if task == "restoration":  # bright blots, which are soon learnt
        found.pretext.lesions = Lesions(kinds=(1, 0, 0, 0), half_axis=(0.3, 0.35), amplitude=(0.5, 0.6), bright=1.0)
    (phase,) = found.begin()
    assert (phase.name, phase.steps, phase.ready) == ("backbone", 60, False)
    owned = {id(p) for g in phase.optimisers["backbone"].param_groups for p in g["params"]}
    assert owned == {id(p) for p in found.parameters()}
    before, first = {k: v.clone() for k, v in found.state_dict().items()}, score(found)
    optimisers, batches = Optimisers(phase.optimisers), healthy()
    for k in range(60):
        optimisers.scale_lr(phase.lr_scale(k, 60))
        phase.step(batches, k, optimisers)
    phase.finish()
    assert score(found) < left * first
    after = found.state_dict()
    assert all(not torch.equal(after[k], v) for k, v in before.items() if "bn" in k or "conv" in k), "weights and statistics"
    assert int(after["network.bn1.num_batches_tracked"]) == 60
    assert not any(p.requires_grad for p in found.parameters())
    assert not any(module.training for module in found.modules())


def test_a_fault_in_a_step_leaves_it_frozen():
    found = backbone("self", self_width=4)
    (phase,) = found.begin()
    with pytest.raises(StopIteration):
        phase.step(iter([]), 0, Optimisers(phase.optimisers))
    assert not any(p.requires_grad for p in found.parameters())
    assert not any(module.training for module in found.modules())


def test_restoration_begins_with_the_identity_and_its_loss_is_the_lesion():
    torch.manual_seed(0)
    x = next(healthy()).image
    head, network = pretext.Restoration(1, (8, 16, 32)), resnet18(channels=1, classes=0, stages=3, width=8)
    with torch.no_grad():
        assert float(head.residual(network.stages(x)).abs().max()) == 0
        state = torch.get_rng_state()
        loss = head.losses(network, x).total
        torch.set_rng_state(state)
        lesions = pretext.add_lesions(x, pretext.foreground(x), head.lesions, pretext.CORRUPTED) - x
    size = lesions.abs()
    expected = torch.where(size < pretext.BETA, size**2 / (2 * pretext.BETA), size - pretext.BETA / 2).mean()
    assert float(expected) > 0
    torch.testing.assert_close(loss, expected)


def test_rotation_shows_each_image_all_four_ways():
    shown = []

    class Spy:
        channels = (2, 2, 2)

        def stages(self, x: Tensor, last: int | None = None) -> tuple[Tensor, ...]:
            shown.append(x)
            return (x[:, :1].expand(-1, 2, -1, -1),)

    image = torch.rand(3, 1, 32, 48)
    head = pretext.Rotation((2, 2, 2))
    loss = head.losses(Spy(), image).total
    (turned,) = shown
    middle = image[..., 8:40]
    for r in range(4):
        assert torch.equal(turned[3 * r : 3 * r + 3], torch.rot90(middle, r, (2, 3)))
    logits = head.linear(turned.mean((2, 3)).expand(-1, 2))
    expected = -torch.stack([logits.log_softmax(1)[3 * r + i, r] for r in range(4) for i in range(3)]).mean()
    torch.testing.assert_close(loss, expected)


def test_densenet_is_cut_where_its_third_stage_ends():
    assert not any("transition3.conv" in name for name in densenet169(classes=0, stages=3).state_dict())


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_a_run_stopped_while_its_encoder_learns_ends_in_the_same_place(name, tmp_path, monkeypatch):
    learns = BackboneConfig(name="self", self_steps=4, self_width=4)
    toy = toys.toy(name, tmp_path / "data", steps=2, method={"backbone": learns}, save_every=10)
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == 3 else "")
        with pytest.raises(Interrupted):
            train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True, resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(tmp_path / "whole")
    loaded, _ = weights.load(tmp_path / "run" / "weights" / "last.safetensors")
    kept = checkpoint.load(tmp_path / "run")["loop"]["method"]
    network = {k: v for k, v in loaded.state_dict().items() if k.startswith("backbone.network.")}
    assert network
    assert all(torch.equal(v, kept[k]) for k, v in network.items()), "the trained encoder travels with the weights"
    assert not any("pretext" in k for k in weights.kept(loaded)), "its head does not"
