"""UNIT, ACL-GAN, Council GAN, CoGAN and BiGAN: what is asked of all of them. Each has a file of its own besides."""

from __future__ import annotations

from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from comparing import METHODS, PLAYERS, build, images, step

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import comparators
from healmap.methods.base import Optimisers
from healmap.types import Batch, Needs, Spec


@pytest.mark.parametrize("name", METHODS)
def test_every_player_moves_in_a_step_and_only_by_its_own_loss(name):
    method = build(METHODS[name])
    optimisers = Optimisers(method.phases()[0].optimisers)
    descend, seen = optimisers.descend, []

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in PLAYERS[name]}
        descend(which, loss)
        for m in PLAYERS[name]:
            parameters = list(getattr(method, m).parameters())
            assert any(p.grad is not None for p in parameters) == (m == which)
            moved = any(not torch.equal(p, q) for p, q in zip(before[m], parameters, strict=True))
            assert moved == (m == which)
        seen.append(which)

    optimisers.descend = watched
    losses = method.step(repeat(Batch(images(), healthy=images(seed=2))), 2, optimisers)
    order = {"acl-gan": ["D", "G", "G"], "council-gan": ["D", "C", "C", "G"]}
    assert seen == order.get(name, ["D", "G"])
    assert all(t.isfinite() and t.ndim == 0 for group in losses.values() for t in group.values())


@pytest.mark.parametrize("name", METHODS)
def test_sets_reached_and_directions(name):
    method, x = build(METHODS[name]).eval(), images(4)
    assert method.needs is Needs.DISEASED_AND_HEALTHY
    assert method.reaches == ("healthy" if name == "council-gan" else "all")
    with torch.no_grad():
        healed = method.translate_to(x, torch.zeros(4, dtype=torch.int64))
        mixed = method.translate_to(x, torch.tensor([0, 1, 1, 0]))
        torch.testing.assert_close(healed, method.heal(x))
        torch.testing.assert_close(method.predict(x).healed, healed)
    torch.testing.assert_close(mixed[[0, 3]], healed[[0, 3]], rtol=1e-4, atol=1e-4)
    assert torch.allclose(mixed[1:3], healed[1:3], atol=1e-3) == (name == "council-gan")


@pytest.mark.parametrize("name", METHODS)
def test_healing_draws_no_chance(name):
    method, x = build(METHODS[name]).eval(), images()
    with torch.no_grad():
        first = method.predict(x)
        torch.manual_seed(99)
        second = method.predict(x)
    assert torch.equal(first.healed, second.healed)
    assert torch.equal(first.score, second.score)
    torch.testing.assert_close(first.score, first.anomaly_map.mean((1, 2, 3)))


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_trains_and_answers_in_float32(name):
    full = step(build(METHODS[name]))
    with torch.autocast("cpu", torch.bfloat16):
        method = build(METHODS[name])
        half = step(method)
        with torch.no_grad():
            prediction = method.eval().predict(images())
    for group in full:
        for term in full[group]:
            assert half[group][term].dtype == torch.float32
            assert half[group][term].item() == pytest.approx(full[group][term].item(), rel=0.15, abs=0.1), (group, term)
    assert prediction.score.dtype == prediction.healed.dtype == prediction.anomaly_map.dtype == torch.float32


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"steps": 0}, {"width": 0}])
def test_settings_that_cannot_work_are_refused(name, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        METHODS[name].Config(**setting)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("unit", {"lambda_kl": -1.0}), ("unit", {"weight_decay": -1e-4}),
        ("acl-gan", {"lower": 0.6}), ("acl-gan", {"upper": 1.5}),
        ("council-gan", {"members": 1}), ("council-gan", {"council_start": -1}),
        ("cogan", {"critic_widths": (20,)}), ("cogan", {"search_steps": -1}),
        ("bigan", {"decay_share": 2.0}),
    ],
)  # fmt: skip
def test_own_settings_are_refused_with_advice(name, setting):
    with pytest.raises(ConfigError) as error:
        METHODS[name].Config(**setting)
    assert error.value.hint


@pytest.mark.parametrize("name", ["unit", "acl-gan", "council-gan", "cogan"])
def test_weight_decay_and_halving(name):
    method = build(METHODS[name], halve_every=10, weight_decay=0.01)
    (phase,) = method.phases()
    assert all(g["weight_decay"] == 0.01 for o in phase.optimisers.values() for g in o.param_groups)
    assert [phase.lr_scale(k, 100) for k in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    assert build(METHODS[name], halve_every=0).phases()[0].lr_scale(10**6, 10**6) == 1


@pytest.mark.parametrize("name", METHODS)
def test_small_recipes_build_and_step_at_64_px(name):
    experiment = recipes.get(f"{name}-small")
    method = METHODS[name](experiment.method, Spec(height=64, width=64))
    x = F.interpolate(images(2), scale_factor=2)
    phase = method.phases()[0]
    losses = phase.step(repeat(Batch(x, healthy=x)), experiment.method.steps - 1, Optimisers(phase.optimisers))
    assert all(t.isfinite() for group in losses.values() for t in group.values())
    assert sum(p.numel() for p in method.parameters()) < 4_000_000


def test_parts_and_judged():
    maps = [torch.arange(10.0).view(5, 1, 1, 2), torch.arange(5.0).view(5, 1, 1, 1)]
    first, second = comparators.parts(maps, 2, 3)
    assert [m[:, 0, 0, 0].tolist() for m in (*first, *second)] == [[0, 2], [0, 1], [4, 6, 8], [2, 3, 4]]
    assert comparators.judged(first, 1).item() == pytest.approx((1 + 0 + 1 + 4) / 4 + (1 + 0) / 2)
