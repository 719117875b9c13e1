"""Restoration: does nothing before training, learns to undo, judges each image by itself."""

from __future__ import annotations

import dataclasses
from itertools import repeat

import pytest
import torch
from torch.testing import assert_close

from healmap import recipes
from healmap.config import from_plain, override, to_plain
from healmap.errors import ConfigError
from healmap.methods.base import Optimisers
from healmap.methods.restoration import Restoration, RestorationConfig
from healmap.types import Batch, Needs, Spec

HEADS = ["residual", "warp", "both"]


def tiny(**changes) -> Restoration:
    config, spec = Restoration.tiny()
    torch.manual_seed(0)
    return Restoration(dataclasses.replace(config, **changes), spec).eval()


def disc(n: int = 4, size: int = 32) -> torch.Tensor:
    """Discs of slightly differing radius on black, (n, 1, size, size) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    r = ((x - size / 2) ** 2 + (y - size / 2) ** 2).sqrt()
    radii = torch.linspace(0.3, 0.42, n)[:, None, None, None] * size
    return torch.sigmoid(radii - r) * 1.2 - 1


def rings(size: int = 32) -> torch.Tensor:
    """One pattern full of edges, so that every deformation shows: (1, 1, size, size) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.sin(((x - size / 2) ** 2 + (y - size / 2) ** 2).sqrt() * 0.8)[None, None] * 0.8


@torch.enable_grad()
def train(method: Restoration, image: torch.Tensor, steps: int) -> list[float]:
    torch.manual_seed(0)
    [phase] = method.train().phases()
    optimisers, batches = Optimisers(phase.optimisers), repeat(Batch(image))
    history = []
    for k in range(steps):
        optimisers.scale_lr(phase.lr_scale(k, steps))
        history.append(phase.step(batches, k, optimisers)["unet"].total.item())
    method.eval()
    return history


def unsettle(method: Restoration) -> Restoration:
    torch.nn.init.normal_(method.unet.last.weight, std=0.02)
    return method


@pytest.mark.parametrize("head", HEADS)
class TestHeads:
    def test_before_training_nothing_is_healed(self, head):
        x = disc()
        with torch.no_grad():
            prediction = tiny(head=head).predict(x)
        assert torch.equal(prediction.healed, x)
        assert not prediction.anomaly_map.any()
        assert not prediction.score.any()

    def test_the_prediction_is_complete(self, head):
        with torch.no_grad():
            prediction = unsettle(tiny(head=head)).predict(disc())
        assert prediction.healed.shape == prediction.anomaly_map.shape == (4, 1, 32, 32)
        assert prediction.anomaly_map.min() >= 0
        assert prediction.anomaly_map.max() > 0
        assert prediction.healed.min() >= -1
        assert prediction.healed.max() <= 1
        assert ("displacement" in prediction.maps) == (head != "residual")
        if head != "residual":
            assert prediction.maps["displacement"].shape == (4, 2, 32, 32)

    def test_an_image_is_judged_by_itself(self, head):
        method = unsettle(tiny(head=head))
        with torch.no_grad():
            together, alone = method.predict(disc()), method.predict(disc()[2:3])
        assert_close(together.score[2:3], alone.score, atol=1e-5, rtol=0)
        assert_close(together.anomaly_map[2:3], alone.anomaly_map, atol=1e-5, rtol=0)
        for name, value in together.maps.items():
            assert_close(value[2:3], alone.maps[name], atol=1e-4, rtol=0)

    def test_it_learns(self, head, monkeypatch):
        method, clean = tiny(head=head, warm_up=5, lr=3e-3, jitter=(1.0, 1.0), foreground="all"), rings().expand(8, -1, -1, -1)
        torch.manual_seed(1)
        corrupted = method.corrupt(clean)
        monkeypatch.setattr(method, "corrupt", lambda x: corrupted)  # the same lesions at every step: seconds suffice
        with torch.no_grad():
            before = method.loss(corrupted, clean).total
            train(method, clean, 60)
            after = method.loss(corrupted, clean).total
        assert after < 0.8 * before

    def test_same_seed_same_weights(self, head):
        states = []
        for _ in range(2):
            method = tiny(head=head)
            train(method, disc(), 3)
            states.append(method.state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_colour_images_pass(self, head):
        config, spec = Restoration.tiny()
        method = Restoration(dataclasses.replace(config, head=head), dataclasses.replace(spec, channels=3))
        x = disc().expand(-1, 3, -1, -1).contiguous()
        train(method, x, 2)
        with torch.no_grad():
            prediction = method.predict(x)
        assert prediction.healed.shape == (4, 3, 32, 32)
        assert prediction.anomaly_map.shape == (4, 1, 32, 32)

    def test_it_runs_in_bfloat16(self, head):
        method = tiny(head=head)
        with torch.autocast("cpu", torch.bfloat16):
            history = train(method, disc(), 3)
            with torch.no_grad():
                prediction = method.predict(disc())
        assert all(value == value for value in history)
        assert prediction.anomaly_map.dtype == prediction.score.dtype == prediction.healed.dtype == torch.float32


def test_a_residual_heals_by_addition_and_leaves_the_background_alone():
    method, x = unsettle(tiny(mirror=False)), disc()
    with torch.no_grad():
        healed, out, inside = method.heal(x), method.unet(x), method.inside(x)
    assert_close(healed[inside], (x + out).clamp(-1, 1)[inside])
    assert torch.equal(healed[~inside], x[~inside])
    assert (~inside).any()


@pytest.mark.parametrize("head", HEADS)
def test_with_the_mirror_image_the_answer_is_mirrored_too(head):
    method, x = unsettle(tiny(head=head)), rings()
    x = x + torch.linspace(-0.2, 0.2, 32)  # unlike its mirror image
    with torch.no_grad():
        plain, mirrored = method.predict(x), method.predict(x.flip(3))
    assert_close(mirrored.anomaly_map.flip(3), plain.anomaly_map, atol=1e-5, rtol=0)
    if head != "residual":
        d = mirrored.maps["displacement"].flip(3)
        assert_close(torch.stack((-d[:, 0], d[:, 1]), dim=1), plain.maps["displacement"], atol=1e-4, rtol=0)


def test_a_displacement_says_where_values_are_fetched_from():
    method = tiny(head="warp", foreground="all", mirror=False)
    with torch.no_grad():
        method.unet.last.bias[0] = 1.25  # 1.25 units of 0.1 half sides of 16 px: two pixels along x
        x = torch.rand(1, 1, 32, 32) * 2 - 1
        prediction = method.predict(x)
    assert_close(prediction.maps["displacement"][:, 0], torch.full((1, 32, 32), 2.0))
    assert_close(prediction.healed[..., :29], x[..., 2:31])


def test_a_made_up_lesion_is_undone_where_it_is():
    healthy = disc(16)
    method = tiny(levels=2, width=8, warm_up=5, lr=3e-3, jitter=(1.0, 1.0))
    train(method, healthy, 150)
    sick = healthy[8:9].clone()
    sick[..., 12:17, 14:19] += 0.8
    with torch.no_grad():
        before, after = method.predict(healthy[8:9]), method.predict(sick)
    assert after.score > 2 * before.score
    peak = int(after.anomaly_map.flatten().argmax())
    assert 11 <= peak // 32 <= 17
    assert 13 <= peak % 32 <= 19
    assert (after.healed - healthy[8:9]).abs().mean() < 0.7 * (sick - healthy[8:9]).abs().mean()


def test_the_background_of_the_map_is_empty_but_for_the_smoothing():
    with torch.no_grad():
        prediction = unsettle(tiny(smooth=1)).predict(disc())
    assert not prediction.anomaly_map[prediction.maps["foreground"] == 0].any()


@pytest.mark.parametrize("sign", ["both", "bright", "dark"])
def test_signs_count_what_they_say(sign):
    method = tiny(sign=sign, smooth=1)
    x, inside = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    healed = torch.tensor([[[[-0.5, 0.5], [0.0, 0.25]]]])
    expected = {"both": [0.25, 0.25, 0, 0.125], "bright": [0.25, 0, 0, 0], "dark": [0, 0.25, 0, 0.125]}[sign]
    assert method.anomaly_map(x, healed, inside).flatten().tolist() == expected


def test_scores_are_what_they_say():
    anomaly_map = torch.arange(8.0).view(2, 1, 2, 2)
    inside = torch.tensor([[True, True, False, False], [False, True, True, True]]).view(2, 1, 2, 2)
    names = ("mean", "foreground-mean", "max", "top")
    scores = {name: tiny(score=name, top=0.5).score(anomaly_map, inside).tolist() for name in names}
    assert scores["mean"] == [1.5, 5.5]
    assert scores["foreground-mean"] == [0.5, 6.0]
    assert scores["max"] == [3.0, 7.0]
    assert scores["top"] == [3.0, 6.5]  # half of two pixels: one; half of three: two


def test_the_learning_rate_rises_and_ends_at_zero():
    method = tiny(warm_up=10)
    scale = [method.lr_scale(k, 100) for k in range(101)]
    assert scale[:10] == sorted(scale[:10])
    assert scale[0] > 0
    assert max(scale) == scale[10] == 1
    assert scale[100] == 0
    assert all(method.lr_scale(k, 3) > 0 for k in range(3))


def test_only_the_corrupted_share_changes():
    torch.manual_seed(0)
    x = disc(200)
    changed = (tiny(corrupted=0.7).corrupt(x) != x).flatten(1).any(1).float().mean()
    assert 0.6 < changed < 0.8


def test_a_size_that_cannot_work_says_which_can():
    with pytest.raises(ConfigError, match="use --size 96 or 112"):
        Restoration(RestorationConfig(), Spec(height=100, width=100))


@pytest.mark.parametrize(
    "wrong", [{"smooth": 4}, {"stem": 3}, {"corrupted": 1.5}, {"jitter": (1.2, 0.8)}, {"top": 0.0}, {"width": 0}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        RestorationConfig(**wrong)


def test_settings_survive_json_and_nested_overrides():
    config = override(RestorationConfig(), ["head=warp", "lesions.amplitude=0.2,0.3", "bumps.inwards=1"])
    assert config.lesions.amplitude == (0.2, 0.3)
    assert from_plain(RestorationConfig, to_plain(config)) == config


def test_it_sees_healthy_images_only():
    assert Restoration.needs is Needs.HEALTHY


@pytest.mark.parametrize("name", ["", "-lgg", "-prototype", "-small", "-warp", "-both"])
def test_the_recipes_build(name):
    experiment = recipes.get("restoration" + name)
    assert experiment.method_name == "restoration"
    Restoration(experiment.method, Spec(height=experiment.data.size, width=experiment.data.size))
