"""What every method in the table keeps to, asked of each by name. A new method is tested by its line in the table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import Tensor

from healmap import methods
from healmap.config import from_plain, to_plain
from healmap.data.loader import Loader
from healmap.errors import ConfigError, Interrupted
from healmap.methods import weights
from healmap.methods.base import Losses, Method, Optimisers
from healmap.training import checkpoint, train_run
from healmap.training.loop import Loop
from healmap.types import Needs, Prediction, Spec

pytestmark = pytest.mark.parametrize("name", methods.names())
STEPS = 6


def tiny(name: str, **spec: int) -> Method:
    """The method at its smallest, its last layers no longer zero, in ``eval()``."""
    cls = methods.get(name)
    config, own = cls.tiny()
    torch.manual_seed(0)
    method = cls(config, dataclasses.replace(own, **spec))
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.05 * torch.randn_like(p))  # methods that begin by changing nothing would pass too easily
    return method.eval()


def pictures(method: Method, count: int = 4) -> Tensor:
    """Blurred noise with a border of background, (count, C, H, W) in [-1, 1]."""
    s = method.spec
    noise = torch.rand(count, s.channels, s.height, s.width, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    smooth[..., :3, :] = 0
    return smooth / smooth.max() * 2 - 1


@torch.no_grad()
def predict(method: Method, image: Tensor) -> Prediction:
    return method.predict(image)


def tensors(prediction: Prediction) -> dict[str, Tensor]:
    named = {"score": prediction.score, "map": prediction.anomaly_map, "healed": prediction.healed, **prediction.maps}
    return {k: v for k, v in named.items() if v is not None}


@pytest.fixture(scope="session")
def _runs() -> dict[str, Path]:
    return {}


@pytest.fixture
def finished(name: str, data: Path, tmp_path_factory: pytest.TempPathFactory, _runs: dict[str, Path]) -> Path:
    """A run of a few steps; one per method for the whole session."""
    if name not in _runs:
        toy = toys.toy(name, data, steps=STEPS, save_every=2)
        _runs[name] = train_run(toy.experiment, toy.train, toy.val, tmp_path_factory.mktemp(name) / "run", quiet=True)
    return _runs[name]


# What it declares


def test_declarations(name: str) -> None:
    cls = methods.get(name)
    assert isinstance(cls.needs, Needs)
    assert cls.title
    assert dataclasses.is_dataclass(cls.Config)
    assert cls.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(f.kw_only for f in dataclasses.fields(cls.Config))
    assert "steps" in {f.name for f in dataclasses.fields(cls.Config)}
    method = tiny(name)
    for part in method.averaged:
        assert list(method.get_submodule(part).parameters())


def test_settings_survive_json(name: str) -> None:
    cls = methods.get(name)
    for config in (cls.Config(), cls.tiny()[0]):
        assert from_plain(cls.Config, json.loads(json.dumps(to_plain(config)))) == config


def test_phases(name: str) -> None:
    method = tiny(name)
    phases = method.phases()
    assert len({p.name for p in phases}) == len(phases) > 0
    for phase in phases:
        assert phase.steps is None or phase.steps > 0
        total = phase.steps or 10
        assert all(0 <= phase.lr_scale(k, total) <= 1.0001 for k in range(total))
        owned = [id(p) for o in phase.optimisers.values() for g in o.param_groups for p in g["params"]]
        assert len(owned) == len(set(owned)), "two optimisers move the same weights"
        assert set(owned) <= {id(p) for p in method.parameters()}


# What it says about images


def test_prediction_is_as_declared(name: str) -> None:
    method = tiny(name)
    image = pictures(method)
    found, s = predict(method, image), method.spec
    assert found.score.shape == (4,)
    assert (found.anomaly_map is not None) == method.localises
    assert (found.healed is not None) == method.heals
    if found.anomaly_map is not None:
        assert found.anomaly_map.shape == (4, 1, s.height, s.width)
        assert float(found.anomaly_map.min()) >= 0
        assert float(found.anomaly_map.max()) > 0
    if found.healed is not None:
        assert found.healed.shape == image.shape
        assert float(found.healed.abs().max()) <= 1
    for what, value in tensors(found).items():
        assert len(value) == 4, what
        assert bool(torch.isfinite(value).all()), what


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_flat_images_have_an_answer(name: str, value: float) -> None:
    method = tiny(name)
    for what, found in tensors(predict(method, torch.full_like(pictures(method, 1), value))).items():
        assert bool(torch.isfinite(found).all()), what


def test_score_of_an_image_ignores_its_neighbours(name: str) -> None:
    method = tiny(name)
    image = pictures(method)
    together, alone = tensors(predict(method, image)), tensors(predict(method, image[2:3]))
    for what in together:
        # Rounding differs with the size of a batch; seventeen norms in a row make 7e-6 of it.
        torch.testing.assert_close(together[what][2:3], alone[what], rtol=3e-5, atol=3e-5)


def test_predicting_changes_nothing(name: str) -> None:
    method = tiny(name)
    image = pictures(method)
    before, kept, chance = {k: v.clone() for k, v in method.state_dict().items()}, image.clone(), torch.get_rng_state()
    first, second = tensors(predict(method, image)), tensors(predict(method, image))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert torch.equal(image, kept)
    assert torch.equal(torch.get_rng_state(), chance)


def test_memory_layout_does_not_matter(name: str) -> None:
    method = tiny(name)
    image = pictures(method)
    plain = tensors(predict(method, image))
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = tensors(predict(method, image.contiguous(memory_format=torch.channels_last)))
    for what in plain:
        torch.testing.assert_close(plain[what], other[what], rtol=1e-4, atol=1e-4)


# What it can be built for


def test_colour_images(name: str, data: Path) -> None:
    method = tiny(name, channels=3)
    found = predict(method, pictures(method))
    assert found.healed is None or found.healed.shape[1] == 3
    assert found.anomaly_map is None or found.anomaly_map.shape[1] == 1
    toy = toys.toy(name, data, data={"channels": 3})
    own_loop(method, toy, 2)


@pytest.mark.parametrize("size", [(33, 33), (30, 30), (16, 16), (8, 8), (96, 64)])
def test_a_size_works_or_is_refused_with_advice(name: str, size: tuple[int, int]) -> None:
    cls = methods.get(name)
    config, spec = cls.tiny()
    refused: ConfigError | None = None
    try:
        method = cls(config, dataclasses.replace(spec, height=size[0], width=size[1])).eval()
    except ConfigError as error:
        refused = error
    if refused is None:
        assert predict(method, pictures(method)).score.shape == (4,)
    else:
        assert any(character.isdigit() for character in refused.hint), "the advice names a size that works"


def test_weights_there_and_back(name: str, tmp_path: Path) -> None:
    method = tiny(name)
    loaded, card = weights.load(weights.save(method, tmp_path / "w.safetensors", {"step": 3}))
    assert (card["method"], card["step"]) == (name, 3)
    assert (loaded.config, loaded.spec) == (method.config, method.spec)
    before, after = tensors(predict(method, pictures(method))), tensors(predict(loaded, pictures(method)))
    assert all(torch.equal(before[k], after[k]) for k in before)


# How it learns


def own_loop(method: Method, toy: toys.Toy, steps: int) -> list[dict[str, Losses]]:
    """Training without healmap's trainer, as a user may write it."""
    loader, found = Loader(toy.train, method.needs, batch_size=4, seed=0, workers=0), []
    method.train()
    for phase in method.phases():
        optimisers, batches = Optimisers(phase.optimisers), loader.forever()
        for k in range(steps):
            optimisers.scale_lr(phase.lr_scale(k, steps))
            found.append(dict(phase.step(batches, k, optimisers)))
        phase.finish()
    return found


def test_learns_in_a_users_own_loop(name: str, data: Path) -> None:
    method = tiny(name)
    before = {k: v.clone() for k, v in method.named_parameters()}
    first = {k: v.clone() for k, v in method.state_dict().items()}
    found = own_loop(method, toys.toy(name, data), STEPS)
    for losses in found:
        for network, terms in losses.items():
            for term, value in terms.items():
                assert value.numel() == 1
                assert bool(torch.isfinite(value)), f"{network}.{term}"
    moved = {k for k, v in method.named_parameters() if not torch.equal(v, before[k])}
    groups = [g for phase in method.phases() for o in phase.optimisers.values() for g in o.param_groups]
    owned = {id(p) for g in groups for p in g["params"]}
    trained = {k for k, v in method.named_parameters() if id(v) in owned}
    assert trained >= moved
    assert len(moved) >= len(trained) / 2
    assert any(not torch.equal(v, first[k]) for k, v in method.state_dict().items())


def test_learns_from_the_same_seed_the_same(name: str, data: Path, tmp_path: Path, finished: Path) -> None:
    toy = toys.toy(name, data, steps=STEPS, save_every=100, data={"workers": 0})
    again = train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    assert toys.digests(again) == toys.digests(finished)


@pytest.mark.parametrize("step", [1, STEPS - 1])
def test_stopped_and_resumed_ends_in_the_same_place(
    name: str, data: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    toy = toys.toy(name, data, steps=STEPS, save_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == step else "")
        with pytest.raises(Interrupted):
            train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True, resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(finished)


def test_learns_in_bf16(name: str, data: Path, tmp_path: Path, finished: Path) -> None:
    toy = toys.toy(name, data, steps=STEPS, precision="bf16", clip=1.0)
    train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
    state = checkpoint.load(tmp_path / "run")["loop"]
    full = checkpoint.load(finished)["loop"]
    if any(phase.optimisers for phase in tiny(name).phases()):  # statistics of fixed filters are the same in any precision
        assert any(not torch.equal(v, full["method"][k]) for k, v in state["method"].items() if isinstance(v, Tensor))
    for name_, value in state["method"].items():
        assert value.dtype == full["method"][name_].dtype, "weights stay in full precision"


def test_a_trained_run_predicts(name: str, finished: Path) -> None:
    method, card = weights.load(finished / "weights" / "last.safetensors")
    assert card["step"] == STEPS
    found: dict[str, Any] = tensors(predict(method, pictures(method)))
    assert all(bool(torch.isfinite(v).all()) for v in found.values())
    assert isinstance(method.spec, Spec)
