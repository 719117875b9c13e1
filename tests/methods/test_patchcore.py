"""PatchCore: both feature recipes, the paper's equations, a bank that never outgrows its cap and fits one size only."""

from __future__ import annotations

import dataclasses
import math
from itertools import repeat

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch.testing import assert_close

from healmap import recipes
from healmap.config import from_plain, override, to_plain
from healmap.errors import CheckpointError, ConfigError, DataError, TrainingError, UsageError
from healmap.io.atomic import write_json
from healmap.methods import weights
from healmap.methods.backbone import BackboneConfig
from healmap.methods.base import Optimisers
from healmap.methods.patchcore import PatchCore, PatchCoreConfig, anomalib, official
from healmap.types import Batch, Spec

PATCHES = 16  # of a 32 px image


def tiny(size: int = 32, **changes) -> PatchCore:
    config, spec = PatchCore.tiny()
    return PatchCore(dataclasses.replace(config, **changes), dataclasses.replace(spec, height=size, width=size)).eval()


def pictures(n: int = 6, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Soft noise, (n, 1, size, size) in [-1, 1]."""
    noise = torch.rand(n, 1, size + 4, size + 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.avg_pool2d(noise, 5, 1)


def fit(method: PatchCore, image: torch.Tensor, batch: int = 4, seed: int = 0) -> PatchCore:
    torch.manual_seed(seed)
    *_, phase = method.phases()
    batches = iter([Batch(part) for part in image.split(batch)])
    for k in range(-(-len(image) // batch)):
        assert phase.step(batches, k, Optimisers({})) == {}
    phase.finish()
    return method


def fitted(size: int = 32, image: torch.Tensor | None = None, **changes) -> PatchCore:
    return fit(tiny(size, **changes), pictures(size=size) if image is None else image)


def full(**changes) -> PatchCore:
    """Every patch of every training image in the bank."""
    return fitted(**{"bank_size": 6 * PATCHES, "patches_per_image": 0, **changes})


# Features


def bins(values: np.ndarray, count: int) -> np.ndarray:
    """Averages of a vector over ``count`` bins, which may share values at their borders."""
    n = len(values)
    return np.array([values[math.floor(i * n / count) : math.ceil((i + 1) * n / count)].mean() for i in range(count)])


def test_official_features_are_the_programs():
    """Its order: unfold, enlarge the unfolded stage 3, average into bins, stack, average again; patch by patch."""
    torch.manual_seed(0)
    middle, deep, dimensions = torch.randn(2, 5, 4, 6), torch.randn(2, 7, 2, 3), 16
    two = F.pad(middle, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (N, 5, 4, 6, 3, 3)
    three = F.pad(deep, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    three = F.interpolate(three.permute(0, 1, 4, 5, 2, 3).flatten(1, 3), (4, 6), mode="bilinear", align_corners=False)
    wanted = np.zeros((2, dimensions, 4, 6))
    for n, y, x in np.ndindex(2, 4, 6):
        first = bins(two[n, :, y, x].flatten().double().numpy(), dimensions)
        second = bins(three[n, :, y, x].double().numpy(), dimensions)
        wanted[n, :, y, x] = bins(np.concatenate([first, second]), dimensions)
    np.testing.assert_allclose(official(middle, deep, dimensions), wanted, rtol=1e-4, atol=1e-6)


def test_anomalib_features_are_means_side_by_side():
    torch.manual_seed(0)
    middle, deep = torch.randn(2, 5, 4, 6), torch.randn(2, 7, 2, 3)
    found = anomalib(middle, deep, 0)
    assert found.shape == (2, 12, 4, 6)
    around = F.pad(middle, (1, 1, 1, 1))[1, 3, 2:5, 3:6]
    assert_close(found[1, 3, 2, 3], around.sum() / 9)
    assert_close(found[:, 3, 0, 0], middle[:, 3, :2, :2].sum((1, 2)) / 9)  # beyond the border lie zeros
    assert_close(found[:, 5:, 0, 0], F.pad(deep, (1, 1, 1, 1))[:, :, :3, :3].sum((2, 3)) / 9)


@pytest.mark.parametrize(("features", "width"), [("official", 32), ("anomalib", 36)])
def test_the_bank_is_as_wide_as_the_features(features, width):
    method = tiny(features=features)
    assert method.patches(pictures()).shape == (6, PATCHES, width)
    assert method.bank.shape == (40, width)


# Distances, score, map


def test_a_training_patch_scores_0_with_a_full_bank():
    method = full(sigma=0.0)
    found = method.predict(pictures())
    assert not found.score.any()
    assert not found.anomaly_map.any()
    assert method.predict(pictures(seed=1)).score.min() > 0


def test_score_and_map_are_the_papers():
    """Eqs. (5) to (7) in float64, from the patches and the bank alone."""
    method, image = fitted(reweighting=4), pictures(3, seed=1)
    patches, bank = method.patches(image).double().numpy(), method.bank.double().numpy()
    found = method.predict(image)
    for n in range(3):
        apart = np.linalg.norm(patches[n][:, None] - bank, axis=2)  # (P, K)
        star = apart.min(1).argmax()
        entry = apart[star].argmin()
        around = np.linalg.norm(bank - bank[entry], axis=1).argsort(kind="stable")[:4]
        factor = 1 - np.exp(apart[star, entry]) / np.exp(apart[star, around]).sum()
        assert float(found.score[n]) == pytest.approx(factor * apart[star, entry], rel=1e-4)
        grid = torch.from_numpy(apart.min(1).reshape(1, 1, 4, 4))
        enlarged = F.interpolate(grid, (32, 32), mode="bilinear", align_corners=False)[0, 0].numpy()
        np.testing.assert_allclose(found.anomaly_map[n, 0], gaussian_filter(enlarged, 1.0), rtol=1e-4)


def test_the_factor_falls_where_the_bank_is_dense():
    method = tiny(reweighting=3)
    bank = torch.zeros(6, method.bank.shape[1])
    bank[:, 0] = torch.tensor([0.0, 0.1, 0.2, 50.0, 60.0, 70.0])
    method.bank[:6], method.filled = bank, torch.tensor(6)
    query = torch.zeros(2, bank.shape[1])
    query[:, 0], query[:, 1] = torch.tensor([0.1, 60.0]), 1.0
    dense, sparse = method.weight(query, torch.tensor([1, 4]), bank)
    assert float(dense) == pytest.approx(2 / 3, abs=0.01)
    assert float(sparse) == pytest.approx(1 - 1 / (1 + 2 * math.exp(math.sqrt(101) - 1)), rel=1e-5)


def test_switches_of_distance_score_and_map():
    image, same = pictures(3, seed=1), {"sigma": 0.0, "enlarge": "nearest", "score": "max"}
    plain, squared, five = (fitted(**same, **c) for c in ({}, {"distance": "squared"}, {"neighbours": 5}))
    found = plain.predict(image)
    cells = found.anomaly_map.unflatten(2, (4, 8)).unflatten(4, (4, 8))  # (N, 1, 4, 8, 4, 8)
    assert bool((cells == cells[:, :, :, :1, :, :1]).all())
    assert torch.equal(found.score, found.anomaly_map.amax((1, 2, 3)))
    assert_close(squared.predict(image).score, found.score**2)
    five_nearest = torch.cdist(five.patches(image), five.bank).topk(5, largest=False).values.mean(2)
    assert_close(five.predict(image).score, five_nearest.amax(1))
    reweighted = fitted(**{**same, "score": "reweighted"}).predict(image)
    assert torch.equal(reweighted.anomaly_map, found.anomaly_map)
    assert bool((reweighted.score < found.score).all())


def test_a_blob_stands_out():
    method, image = full(), pictures()
    ill = image.clone()
    ill[:, :, 10:18, 4:12] = 1.0
    found = method.predict(ill)
    assert found.score.min() > 2 * method.predict(pictures(seed=1)).score.max()
    row, column = divmod(int(found.anomaly_map[0, 0].argmax()), 32)
    assert 8 <= row <= 20
    assert 2 <= column <= 14


def test_position_tells_where_a_patch_belongs():
    anywhere, placed, image = fitted(), fitted(position=2.0), pictures(1)
    free, bound = anywhere.patches(image), placed.patches(image)
    assert torch.equal(bound[..., :-2], free)
    assert bound[0, 0, -2:].tolist() == [-1.5, -1.5]
    assert bound[0, 1, -2:].tolist() == [-0.5, -1.5], "x first"
    assert bound[0, 4, -2:].tolist() == [-1.5, -0.5]
    flat = torch.zeros(1, 1, 32, 32)  # every patch is like every other, up to its place
    placed = tiny(position=2.0, score="max", sigma=0.0, enlarge="nearest")
    placed.bank[0], placed.filled = placed.patches(flat)[0, 5], torch.tensor(1)
    found = placed.predict(flat).anomaly_map[0, 0, ::8, ::8]
    y, x = torch.meshgrid(torch.arange(4) - 1.0, torch.arange(4) - 1.0, indexing="ij")
    assert_close(found, 2.0 * 2 / 4 * (y**2 + x**2).sqrt(), rtol=0, atol=1e-4)


# The bank


@pytest.mark.parametrize("coreset", ["k-centre", "random"])
def test_the_bank_never_exceeds_its_cap(coreset):
    method = tiny(coreset=coreset, bank_size=24)
    shape, image = method.bank.shape, pictures(23)
    fit(method, image)
    assert method.bank.shape == shape
    assert int(method.filled) == 24
    patches = method.patches(image).flatten(0, 1)
    assert bool((method.bank[:, None] == patches).all(2).any(1).all()), "entries are healthy patches"
    assert len(method.bank.unique(dim=0)) == 24


@pytest.mark.parametrize("coreset", ["k-centre", "random"])
def test_the_same_seed_gives_the_same_bank(coreset):
    one, other, third = (fit(tiny(coreset=coreset), pictures(23), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.bank, other.bank)
    assert not torch.equal(one.bank, third.bank)


def test_so_many_patches_of_each_image_are_drawn():
    method = tiny(patches_per_image=3)
    method.phases()
    patches = torch.arange(5 * PATCHES).float().view(5, PATCHES, 1)
    drawn = method.draw(patches).view(5, 3)
    assert all(len(row.unique()) == 3 for row in drawn)
    assert torch.equal((drawn // PATCHES).long(), torch.arange(5)[:, None].expand(-1, 3))
    for many in (0, PATCHES, 100):
        method = tiny(patches_per_image=many)
        method.phases()
        assert torch.equal(method.draw(patches), patches.flatten(0, 1))


def test_a_bank_larger_than_the_data_says_so_and_answers():
    method, small = tiny(bank_size=500), tiny(bank_size=48)
    assert method.check_data(6) == ["6 healthy images of 8 patches each: the bank keeps them all, with room for 500"]
    assert method.check_data(1000) == []
    assert int(fit(method, pictures()).filled) == int(fit(small, pictures()).filled) == 48
    image = pictures(3, seed=1)
    assert torch.equal(method.predict(image).score, small.predict(image).score)


def test_begun_anew_it_forgets():
    method = fit(fit(tiny(), pictures(seed=3)), pictures())
    assert torch.equal(method.bank, fitted().bank)


@pytest.mark.parametrize("coreset", ["k-centre", "random"])
@pytest.mark.parametrize("n", [3, 5, 6, 10, 23])
def test_few_images_need_little_room_and_give_the_same_bank(n, coreset):
    method, roomy = (tiny(coreset=coreset, coresets=4) for _ in range(2))
    method.check_data(n)
    method.phases()
    if coreset == "k-centre":
        assert len(method.coreset.chunk) == min(n, 5) * 8
        assert method.coreset.kept.shape[:2] == (min(max(2, -(-n // 5)), 4), min(n * 8, 40))
    else:
        assert len(method.coreset.rows) == min(n * PATCHES, 40)
    fit(method, pictures(n))
    assert torch.equal(method.bank, fit(roomy, pictures(n)).bank)
    steps = tiny(coreset=coreset, coresets=4, steps=9)  # so many batches may show an image twice
    steps.check_data(3)
    assert steps.expected is None


def test_only_training_carries_what_only_training_needs(tmp_path):
    method = tiny()
    method.phases()
    assert any(name.startswith("coreset.") for name in method.state_dict())
    fit(method, pictures())
    assert not any(name.startswith("coreset.") for name in method.state_dict()), "the last checkpoint needs it no more"
    loaded, _ = weights.load(weights.save(method, tmp_path / "w.safetensors", {}))
    assert not any(name.startswith("coreset.") for name in loaded.state_dict())
    image = pictures(3, seed=1)
    assert torch.equal(loaded.predict(image).score, method.predict(image).score)


# Bad input


def test_an_image_with_nan_is_refused():
    method = tiny()
    [phase] = method.phases()
    image = pictures()
    image[2, 0, 5, 5] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        phase.step(repeat(Batch(image)), 0, Optimisers({}))
    assert not int(method.coreset.waiting)


def test_too_few_patches_are_refused():
    method = tiny(patches_per_image=1)
    with pytest.raises(UsageError, match="6 healthy images of 1 patches each"):
        method.check_data(6)
    with pytest.raises(TrainingError, match="6 healthy patches"):
        fit(method, pictures())


def test_features_that_only_fill_room_are_remarked_upon():
    assert any("method.features=anomalib" in remark for remark in tiny(dimensions=1024).check_data(1000))
    assert not tiny(dimensions=32).check_data(1000)


def test_a_blur_wider_than_the_image_is_refused():
    with pytest.raises(ConfigError, match="wider than the image"):
        tiny(sigma=33.0)


def test_a_bank_of_another_size_or_backbone_is_refused(tmp_path):
    path = weights.save(fitted(), tmp_path / "w.safetensors", {})
    with pytest.raises(ConfigError, match=r"64x64.*32x32"):
        fitted().predict(pictures(size=64))
    card = weights.read_card(path)
    write_json(weights.card_path(path), card | {"spec": card["spec"] | {"height": 64, "width": 64}})
    with pytest.raises(CheckpointError, match="places"):
        weights.load(path)
    write_json(weights.card_path(path), card | {"config": card["config"] | {"backbone": {"name": "resnet18"}}})
    with pytest.raises(CheckpointError, match="backbone"):
        weights.load(path)


def test_an_imagenet_backbone_without_weights_is_refused():
    method = PatchCore(PatchCoreConfig(backbone=BackboneConfig(name="resnet18"), bank_size=20), Spec(height=32, width=32))
    with pytest.raises(ConfigError, match="no weights"):
        method.phases()


@pytest.mark.parametrize(
    "changes",
    [
        {"bank_size": 0},
        {"bank_size": 8},
        {"coresets": 1},
        {"reweighting": 1},
        {"sigma": -1.0},
        {"patches_per_image": -1},
        {"chunk": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError) as refused:
        PatchCoreConfig(**changes)
    assert refused.value.hint
    assert PatchCoreConfig(bank_size=8, score="max").least == 1


def test_recipes_and_settings():
    for name in [n for n in recipes.names() if n.startswith("patchcore")]:
        experiment = recipes.get(name)
        assert experiment.recipe == name
        assert from_plain(PatchCoreConfig, to_plain(experiment.method)) == experiment.method
    both = recipes.get("patchcore").method, recipes.get("patchcore-anomalib").method
    assert [m.features for m in both] == ["official", "anomalib"]
    assert override(recipes.get("patchcore"), ["method.backbone.name=filters"]).method.backbone.name == "filters"
