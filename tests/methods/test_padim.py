"""PaDiM: the streaming fit is the two-pass fit, the distance is Mahalanobis's, and what cannot work is refused at once."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor
from torch.testing import assert_close

from healmap import recipes
from healmap.config import override
from healmap.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError, UsageError
from healmap.experiment import Experiment
from healmap.methods import weights
from healmap.methods.backbone import BackboneConfig
from healmap.methods.base import Optimisers
from healmap.methods.gaussian import WIDTH, Gaussians
from healmap.methods.padim import PaDiM, merge
from healmap.training import train_run
from healmap.training.loop import Loop
from healmap.types import Batch, Spec

EXACT = {"rtol": 1e-9, "atol": 1e-12}
SIZES = [5, WIDTH, 2 * WIDTH + 7]  # one panel, a full one, several with a narrow last


def vectors(n: int, d: int, places: int = 3, seed: int = 0) -> Tensor:
    """Correlated, and far from zero beside their spread: (n, d, places) float64."""
    chance = torch.Generator().manual_seed(seed)
    mix = torch.randn(places, d, d, dtype=torch.float64, generator=chance) / d**0.5
    e = torch.randn(places, n, d, dtype=torch.float64, generator=chance) @ mix
    return (e + 50 + 10 * torch.rand(places, 1, d, dtype=torch.float64, generator=chance)).permute(1, 2, 0)


def fitted(e: Tensor, batch: int, dtype: torch.dtype = torch.float64) -> Gaussians:
    g = Gaussians(e.shape[2], e.shape[1], dtype)
    for part in e.split(batch):
        g.update(part)
    return g


def lower(g: Gaussians) -> Tensor:
    """The panels put together: (places, d, d), nothing above the diagonal."""
    whole = torch.zeros(g.places, g.d, g.d, dtype=g.mean.dtype)
    for first, panel in zip(g.firsts, g.panels, strict=True):
        whole[:, first:, first : first + panel.shape[2]] = panel
    return whole.tril()


def two_passes(e: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (places, d) and lower half of the scatter (places, d, d), by numpy."""
    means, scatters = [], []
    for x in e.permute(2, 0, 1).numpy():
        means.append(x.mean(0))
        scatters.append(np.tril((x - x.mean(0)).T @ (x - x.mean(0))))
    return torch.tensor(np.stack(means)), torch.tensor(np.stack(scatters))


def tenth(variance: Tensor) -> Tensor:
    return torch.full_like(variance, 0.1)


# The statistics


@pytest.mark.parametrize(("d", "batch"), [(SIZES[0], 1), (SIZES[1], 7), (SIZES[2], 7), (SIZES[2], 150)])
def test_one_pass_equals_two(d: int, batch: int) -> None:
    e = vectors(150, d)
    mean, scatter = two_passes(e)
    g = fitted(e, batch)
    assert int(g.count) == 150
    assert_close(g.mean, mean, **EXACT)
    scale = scatter.abs().amax()  # entries near zero are differences of large ones
    assert_close(lower(g) / scale, scatter / scale, rtol=1e-9, atol=1e-12)
    backwards = fitted(e.flip(0), 13)
    assert_close(lower(backwards) / scale, lower(g) / scale, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", SIZES)
def test_two_half_fits_merged_equal_one(d: int) -> None:
    e = vectors(400, d)
    whole, probe = fitted(e, 50), vectors(6, d, seed=1)
    whole.solve(tenth)
    for solved in (False, True):
        a, b = fitted(e[:130], 32), fitted(e[130:], 32)
        if solved:
            a.solve(lambda v: 0.3 * v)
            b.solve(tenth)
        before = {k: v.clone() for k, v in b.state_dict().items()}
        a.merge(b)
        assert all(torch.equal(v, before[k]) for k, v in b.state_dict().items())
        a.solve(tenth)
        assert int(a.count) == 400
        assert_close(a.distance(probe), whole.distance(probe), **EXACT)
    empty = Gaussians(3, d)
    empty.merge(whole)
    empty.solve(tenth)
    assert_close(empty.distance(probe), whole.distance(probe), **EXACT)


def test_a_solved_fit_takes_more_images() -> None:
    e = vectors(200, 70)
    g, whole = fitted(e[:120], 32), fitted(e, 32)
    g.solve(tenth)
    g.update(e[120:])
    assert not bool(g.solved)
    for x in (g, whole):
        x.solve(tenth)
    assert_close(lower(g), lower(whole), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", SIZES)
def test_distance_is_that_of_scikit_learn(d: int) -> None:
    e, probe = vectors(2 * d + 50, d), vectors(9, d, seed=1)
    g = fitted(e, 32)
    g.solve(torch.zeros_like)
    found = g.distance(probe)
    n = len(e)
    for place in range(3):
        reference = EmpiricalCovariance().fit(e[:, :, place].numpy())  # divides by n
        wanted = np.sqrt(reference.mahalanobis(probe[:, :, place].numpy()) * (n - 1) / n)
        np.testing.assert_allclose(found[:, place], wanted, rtol=1e-7)
    assert_close(g.distance(g.mean.mT[None]), torch.zeros(1, 3, dtype=torch.float64))


def test_single_precision_is_near() -> None:
    e, probe = vectors(300, 100), vectors(9, 100, seed=1)
    fits = [fitted(e, 32, dtype) for dtype in (torch.float64, torch.float32)]
    for g in fits:
        g.solve(tenth)
    assert_close(fits[1].distance(probe).double(), fits[0].distance(probe), rtol=1e-4, atol=0)


def test_autocast_leaves_the_statistics_alone() -> None:
    e = vectors(40, 20).float()
    plain = fitted(e, 10, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        cast = fitted(e, 10, torch.float32)
        assert torch.equal(cast.distance(e[:2]), plain.distance(e[:2]))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), cast.buffers(), strict=True))


def test_a_covariance_that_is_none_is_told() -> None:
    with pytest.raises(TrainingError, match="at least 2 images, not 1"):
        fitted(vectors(1, 5), 1).solve(tenth)
    with pytest.raises(TrainingError, match=r"3 of 3 places is not positive definite.*method\.epsilon"):
        fitted(torch.ones(9, 5, 3), 4).solve(torch.zeros_like)


def test_a_fit_that_cannot_be_solved_stays_a_fit() -> None:
    """Of some places alone the covariance is none; with a larger ε all are solved, as if nothing had been tried."""
    d = SIZES[2]
    e, probe = vectors(300, d, places=9), vectors(4, d, places=9, seed=1)
    e[:, :, 3:5], e[:, -1, 7] = 1.0, 0.0
    whole, g = fitted(e, 50), fitted(e, 50)
    with pytest.raises(TrainingError, match=r"3 of 9 places is not positive definite"):
        g.solve(torch.zeros_like)
    assert not bool(g.solved)
    for wanted, found in zip(whole.panels, g.panels, strict=True):
        assert_close(found.tril(), wanted.tril(), rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    for _ in range(2):  # and again
        for x in (g, whole):
            x.solve(tenth)
        assert_close(g.distance(probe), whole.distance(probe), **EXACT)


def test_half_a_square_is_kept() -> None:
    """d = 100 at 64 x 64 positions: 0.25 GB in float64, not 0.33; d = 550: 5.5, not 9.9."""
    with torch.device("meta"):
        for d, wanted in ((100, 0.256), (550, 5.54)):
            assert sum(b.nbytes for b in Gaussians(4096, d).buffers()) / 1e9 == pytest.approx(wanted, rel=0.01)


# The method


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.phantoms(tmp_path_factory.mktemp("padim") / "phantoms")


def tiny(seed: int = 0, size: int = 32, **changes) -> PaDiM:
    config, _ = PaDiM.tiny()
    torch.manual_seed(seed)
    return PaDiM(dataclasses.replace(config, **changes), Spec(height=size, width=size)).eval()


def images(n: int = 30, size: int = 32, seed: int = 0) -> Tensor:
    """(n, 1, size, size) in [-1, 1]."""
    noise = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 2 - 1


def fit(method: PaDiM, x: Tensor, batch: int = 8) -> PaDiM:
    [phase] = method.train().phases()
    parts = x.split(batch)
    for k, batches in enumerate(map(iter, ([Batch(part)] for part in parts))):
        assert phase.step(batches, k, Optimisers({})) == {}
    phase.finish()
    return method.eval()


def test_maps_equal_an_independent_computation() -> None:
    method, x = fit(tiny(sigma=0.0, epsilon=0.02), images(60)), images(4, seed=1)
    maps = [m.double().numpy() for m in method.backbone.stages(torch.cat([images(60), x]))]
    enlarged = [m.repeat(8 // m.shape[2], axis=2).repeat(8 // m.shape[2], axis=3) for m in maps]
    e = np.concatenate(enlarged, axis=1)[:, method.channels.numpy()]
    wanted = np.empty((4, 8, 8))
    for row, column in np.ndindex(8, 8):
        healthy, probe = e[:60, :, row, column], e[60:, :, row, column]
        precision = np.linalg.inv(np.cov(healthy.T) + 0.02 * np.eye(12))
        r = probe - healthy.mean(0)
        wanted[:, row, column] = np.sqrt(np.einsum("ni,ij,nj->n", r, precision, r))
    np.testing.assert_allclose(method.distance(x)[:, 0], wanted, rtol=1e-5)
    found = method.predict(x)
    reference = torch.nn.functional.interpolate(torch.tensor(wanted)[:, None], (32, 32), mode="bilinear").float()
    assert_close(found.anomaly_map, reference, rtol=1e-4, atol=1e-5)
    assert_close(found.score, reference.flatten(1).amax(1), rtol=1e-4, atol=1e-5)


def test_what_no_healthy_image_has_stands_out() -> None:
    method, x = fit(tiny(sigma=1.0), images(60)), images(4, seed=1)
    x[0, :, 8:14, 18:24] = 1
    found = method.predict(x)
    assert found.score[0] > found.score[1:].max()
    row, column = divmod(int(found.anomaly_map[0].argmax()), 32)
    assert 6 <= row < 16
    assert 16 <= column < 26


def test_epsilon_absolute_relative_and_extra() -> None:
    v = torch.tensor([1.0, 4.0, 0.0, 3.0], dtype=torch.float64)  # mean 2
    assert tiny(epsilon=0.01).ridge(v).tolist() == [0.01] * 4
    assert_close(tiny(epsilon=0.01, epsilon_extra=1e-5).ridge(v), torch.full_like(v, 0.01001))
    assert_close(tiny(epsilon=0.5, relative=True).ridge(v), torch.tensor([0.5, 2.0, 0.001, 1.5], dtype=torch.float64))


def test_with_relative_epsilon_the_unit_of_features_does_not_matter() -> None:
    e, probe = vectors(50, 12), vectors(4, 12, seed=1)
    found = []
    for unit in (1.0, 1000.0):
        g = fitted(e * unit, 10)
        g.solve(tiny(relative=True).ridge)
        found.append(g.distance(probe * unit))
    assert_close(found[0], found[1], **EXACT)


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_the_grid_may_be_a_later_stages(grid: int) -> None:
    method = tiny(size=64, grid=grid, d=0)
    assert method.gaussians.places == (64 // (2 << grid)) ** 2
    e = method.embed(images(3, 64)).unflatten(2, method.size)
    maps = method.backbone.stages(images(3, 64))
    own = slice(18 * (grid - 1), 18 * grid)
    assert_close(e[:, own], maps[grid - 1])
    if grid > 1:
        assert_close(e[:, :18], torch.nn.functional.avg_pool2d(maps[0], 1 << (grid - 1)))
    assert fit(method, images(20, 64)).predict(images(2, 64)).anomaly_map.shape == (2, 1, 64, 64)


@pytest.mark.parametrize("d", [1, 2])
def test_few_channels_may_all_be_one_stages(d: int) -> None:
    config = PaDiM.Config(backbone=BackboneConfig(name="filters"), d=d)
    assert PaDiM(config, Spec(height=32, width=32)).embed(torch.rand(2, 1, 32, 32)).shape == (2, d, 64)


def test_channels_are_drawn_once_and_come_from_the_file(tmp_path: Path) -> None:
    a, b = fit(tiny(seed=0), images()), tiny(seed=1)
    assert torch.equal(a.channels, tiny(seed=0).channels)
    assert not torch.equal(a.channels, b.channels)
    assert all(i < j for i, j in pairwise(a.channels.tolist()))
    path = weights.save(a, tmp_path / "w.safetensors", {})
    torch.manual_seed(7)
    loaded = weights.load(path)[0]
    assert torch.equal(loaded.channels, a.channels)
    assert torch.equal(loaded.predict(images(3, seed=1)).anomaly_map, a.predict(images(3, seed=1)).anomaly_map)
    for broken in ([0] * 12, range(43, 55), range(-1, 11)):
        a.channels.copy_(torch.tensor(broken))
        weights.save(a, path, {})
        with pytest.raises((CheckpointError, ConfigError), match="channels"):
            weights.load(path)


def test_merged_fits_equal_one_of_all_images() -> None:
    x, probe = images(40), images(3, seed=1)
    whole, a, b = (fit(tiny(), part) for part in (x, x[:15], x[15:]))
    assert_close(merge(a, b).predict(probe).anomaly_map, whole.predict(probe).anomaly_map, rtol=1e-6, atol=1e-6)
    assert int(a.gaussians.count) == 40
    with pytest.raises(ConfigError, match=r"different features.*channels"):
        merge(a, fit(tiny(seed=1), x))
    with pytest.raises(ConfigError, match="different settings"):
        merge(a, fit(tiny(sigma=1.0), x))


def test_what_does_not_change_features_does_not_stop_a_merge(tmp_path: Path) -> None:
    """Where the file of weights lay; and the head of a backbone's own training, which weights files do not hold."""
    config, x = PaDiM.Config(backbone=BackboneConfig(name="resnet18", weights="here"), d=4), images(6)
    elsewhere = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights="there"))
    own = dataclasses.replace(config, backbone=BackboneConfig(name="self", self_width=8))
    fits = []
    for c in (config, elsewhere, own):
        torch.manual_seed(0)
        fits.append(PaDiM(c, Spec(height=32, width=32)).eval())
        fits[-1].gaussians.update(fits[-1].embed(x))
        fits[-1].finish()
    here, there, trained = fits
    assert int(merge(here, there).gaussians.count) == 12
    path = weights.save(trained, tmp_path / "w.safetensors", {})
    loaded = [weights.load(path)[0] for _ in range(2)]
    assert int(merge(*loaded).gaussians.count) == 12
    there.backbone.network.conv1.weight[0, 0, 0, 0] += 1
    with pytest.raises(ConfigError, match=r"different features.*conv1"):
        merge(here, there)


# What is refused, and when


def test_too_few_images_are_refused_before_any_work(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny()
    with pytest.raises(UsageError, match="too few: 1 healthy image for a covariance of 12 channels"):
        method.check_data(1)
    with pytest.raises(UsageError, match=r"12 healthy images.*more than 12, or set method\.epsilon"):
        tiny(epsilon=0.0).check_data(12)
    assert tiny(epsilon=0.0).check_data(13) == method.check_data(13) == []
    assert tiny(epsilon=0.0, epsilon_extra=1e-5).check_data(12) == method.check_data(12) != []
    toy = toys.toy("padim", data, method={"epsilon": 0.0, "d": 0}, data={"channels": 3})
    with monkeypatch.context() as patch:
        patch.setattr(PaDiM, "phases", lambda self: pytest.fail("work has begun"))
        with pytest.raises(UsageError, match="too few without epsilon"):
            train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
        few = toys.toy("padim", data, method={"steps": 1, "d": 0}, data={"channels": 3, "batch_size": 1})
        with pytest.raises(UsageError, match=r"too few: 1 healthy image .*more steps"):
            train_run(few.experiment, few.train, few.val, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_no_weights_file_before_there_is_an_answer(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, run = toys.toy("padim", data, method={"steps": 0, "d": 0}, data={"channels": 3}), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == 2 else "")
        with pytest.raises(Interrupted):
            train_run(toy.experiment, toy.train, toy.val, run, quiet=True)
    assert (run / "state.pt").exists()
    assert not (run / "weights").exists() or not list((run / "weights").iterdir())
    train_run(toy.experiment, toy.train, toy.val, run, quiet=True, resume=True)
    method = weights.load(run / "weights" / "last.safetensors")[0]
    healthy = sum(item.label == "healthy" for item in toy.train.items)
    assert int(method.gaussians.count) == healthy
    assert bool(method.gaussians.solved)
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert [note for note in notes if f"{healthy} healthy images for a covariance of 162 channels" in note]


def test_an_image_with_nan_is_refused_not_averaged_in() -> None:
    method, x = tiny(), images(8)
    [phase] = method.phases()
    phase.step(repeat(Batch(x)), 0, Optimisers({}))
    before = {k: v.clone() for k, v in method.state_dict().items()}
    for value in (float("nan"), float("inf")):
        broken = x.clone()
        broken[3, 0, 5, 5] = value
        with pytest.raises(DataError, match="1 of 8 images of batch 1"):
            phase.step(repeat(Batch(broken)), 1, Optimisers({}))
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_settings_that_cannot_work_are_told() -> None:
    for changes, message in (
        ({"d": 55}, "54 channels.*method.d=54"),
        ({"size": 16}, "use 32"),
        ({"grid": 4}, "use 1, 2 or 3"),
        ({"epsilon": -1.0}, "at least 0"),
        ({"sigma": float("nan")}, "at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny(**changes)
    with pytest.raises(ConfigError, match="images of 48x32, but the statistics are of 32x32"):
        tiny().predict(torch.zeros(1, 1, 48, 32))
    with pytest.raises(ConfigError, match=r"weights.*filters.*self"):
        tiny(backbone=BackboneConfig(name="resnet18")).phases()


def test_a_device_without_float64_is_told() -> None:
    def lacking(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        return tensor

    with pytest.raises(ConfigError, match=r"float64.*method\.dtype=float32"):
        tiny()._apply(lacking)
    tiny(dtype="float32")._apply(lacking)


# Recipes and the measuring stick


def test_fact_padim_settings() -> None:
    """Paper: 100 of ResNet-18's channels, 550 of Wide ResNet-50-2's, 224 px; card: anomalib's 256 px and 1e-5."""
    wide, narrow, other = (recipes.get(f"padim{n}") for n in ("", "-resnet18", "-anomalib"))
    with torch.device("meta"):
        facts = [(e.method.backbone.name, built(e).gaussians.d, e.data.size) for e in (wide, narrow, other)]
    assert facts == [("wide_resnet50_2", 550, 224), ("resnet18", 100, 224), ("resnet18", 100, 256)]
    assert (other.method.epsilon, other.method.epsilon_extra, wide.method.epsilon_extra) == (0.01, 1e-5, 0)
    for name in ("", "-resnet18", "-anomalib", "-filters", "-self", "-small"):
        e = recipes.get(f"padim{name}")
        assert not e.data.flip
        assert (e.method.steps, e.training.precision) == (0, "32")
    on_filters = override(wide, ["method.backbone.name=filters"])
    assert built(on_filters).gaussians.d == 54, "another backbone needs no other d"
    assert built(recipes.get("padim-self")).gaussians.d == 100


def built(experiment: Experiment) -> PaDiM:
    return PaDiM(experiment.method, Spec(height=experiment.data.size, width=experiment.data.size))
