"""CycleGAN, with and without shape consistency: what a step does, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F

from healmap.errors import ConfigError
from healmap.methods.base import Optimisers
from healmap.methods.cyclegan import CycleGAN
from healmap.methods.cyclegan_shape import CycleGANShape
from healmap.methods.weights import kept
from healmap.types import Batch, Needs, Spec

GENERATORS, CRITICS = ("to_healthy", "to_diseased"), ("critic_healthy", "critic_diseased")
SEGMENTERS = ("segmenter_healthy", "segmenter_diseased")
PARTS = (*GENERATORS, *CRITICS, *SEGMENTERS)


def build(cls=CycleGAN, seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = cls.tiny()
    return cls(replace(config, **settings), spec)


def batch_of(method, n=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    s = method.spec
    x, y = (torch.rand(n, s.channels, s.height, s.width, generator=g) * 2 - 1 for _ in range(2))
    m_x, m_y = ((torch.rand(n, s.height, s.width, generator=g) > 0.7).long() for _ in range(2))
    return Batch(x, healthy=y, mask=m_x, healthy_mask=m_y)


def run(method, phase=0, steps=1, start=0, autocast=False):
    chosen = method.phases()[phase]
    optimisers, found = Optimisers(chosen.optimisers), []
    for k in range(start, start + steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(chosen.step(repeat(batch_of(method)), k, optimisers))
    return found


def moved(method, phase):
    """Names of the networks that a step of the phase moves."""
    before = {name: [p.clone() for p in getattr(method, name).parameters()] for name in PARTS if hasattr(method, name)}
    run(method, phase)
    after = {name: list(getattr(method, name).parameters()) for name in before}
    return {n for n in before if not all(map(torch.equal, before[n], after[n]))}


def mse(a, target):
    return ((a - target) ** 2).mean().item()


def test_terms_equal_the_equations_one_image_and_one_pass_at_a_time():
    method = build(lambda_A=7.0, lambda_B=3.0, lambda_identity=0.4)
    b = batch_of(method)
    to_y, to_x, d_y, d_x = (getattr(method, n) for n in GENERATORS + CRITICS)
    x, y = b.image, b.healthy
    with torch.no_grad():
        t = method.translate(x, y)
        g, d = method.generator_loss(x, y, t), method.critic_loss(x, y, t.x_of_y, t.y_of_x)
        gx, fy, gy, fx = to_y(x), to_x(y), to_y(y), to_x(x)
        expected = {
            "adv_healthy": mse(d_y(gx), 1),
            "adv_diseased": mse(d_x(fy), 1),
            "cyc_diseased": 7 * (to_x(gx) - x).abs().mean().item(),
            "cyc_healthy": 3 * (to_y(fy) - y).abs().mean().item(),
            "id_healthy": 0.4 * 3 * (gy - y).abs().mean().item(),
            "id_diseased": 0.4 * 7 * (fx - x).abs().mean().item(),
        }
        assert {k: v.item() for k, v in g.items()} == pytest.approx(expected, rel=1e-5)
        assert d["healthy"].item() == pytest.approx((mse(d_y(y), 1) + mse(d_y(gx), 0)) / 2, rel=1e-5)
        assert d["diseased"].item() == pytest.approx((mse(d_x(x), 1) + mse(d_x(fy), 0)) / 2, rel=1e-5)


def test_the_log_objective_is_binary_cross_entropy():
    method = build(adversarial="log")
    b = batch_of(method)
    with torch.no_grad():
        t = method.translate(b.image, b.healthy)
        found = method.generator_loss(b.image, b.healthy, t)["adv_healthy"]
        critic = method.critic_loss(b.image, b.healthy, t.x_of_y, t.y_of_x)["healthy"]
        p = torch.sigmoid(method.critic_healthy(t.y_of_x))
        q = torch.sigmoid(method.critic_healthy(b.healthy))
    torch.testing.assert_close(found, -p.log().mean())
    torch.testing.assert_close(critic, -(q.log().mean() + (1 - p).log().mean()) / 2)


def test_without_identity_loss_generators_see_their_own_side_only():
    seen = []
    for weight in (0.5, 0.0):
        method = build(lambda_identity=weight)
        sizes = []
        method.to_healthy.register_forward_pre_hook(lambda m, args, sizes=sizes: sizes.append(len(args[0])))
        losses = run(method)[0]["G"]
        assert ("id_healthy" in losses) == ("id_diseased" in losses) == bool(weight)
        seen.append(sizes)
    assert seen == [[6, 3], [3, 3]]


@pytest.mark.parametrize("cls", [CycleGAN, CycleGANShape])
def test_a_step_moves_generators_then_critics_and_leaves_no_other_gradient(cls):
    method = build(cls)
    phase = method.phases()[-1]
    optimisers = Optimisers(phase.optimisers)
    descend, seen = optimisers.descend, []

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        descend(which, loss)
        seen.append(
            (
                which,
                {n for n in PARTS if hasattr(method, n) if any(p.grad is not None for p in getattr(method, n).parameters())},
            )
        )

    optimisers.descend = watched
    phase.step(repeat(batch_of(method)), 0, optimisers)
    expected = [("G", set(GENERATORS)), ("D", set(CRITICS)), ("S", set(SEGMENTERS))]
    assert seen == expected[: 2 if cls is CycleGAN else 3]


def test_critics_judge_what_the_pool_gives():
    method = build()
    b = batch_of(method)
    t = method.translate(b.image, b.healthy)
    run(method)
    assert torch.equal(method.pool_healthy.images[:3], t.y_of_x.detach()), "G's translations of before its update"
    assert torch.equal(method.pool_diseased.images[:3], t.x_of_y.detach())
    method = build()
    method.pool_healthy.forward = lambda images: torch.zeros_like(images)
    found = run(method)[0]["D"]
    method = build()
    with torch.no_grad():
        d_y = method.critic_healthy
        expected = (mse(d_y(b.healthy), 1) + mse(d_y(torch.zeros_like(b.image)), 0)) / 2
    assert found["healthy"].item() == pytest.approx(expected, rel=1e-5)


def test_checkpoints_hold_the_pool_and_weights_files_do_not():
    method = build()
    assert any(k.startswith("pool_") for k in method.state_dict())
    assert {k.partition(".")[0] for k in kept(method)} == {*GENERATORS, *CRITICS}


def test_targets_are_reached_image_by_image():
    method = build().eval()
    image = batch_of(method, 4).image
    with torch.no_grad():
        to_y, to_x = method.to_healthy(image), method.to_diseased(image)
        assert torch.equal(method.heal(image), to_y)
        found = method.translate_to(image, torch.tensor([0, 1, 1, 0]))
        torch.testing.assert_close(found, torch.stack([to_y[0], to_x[1], to_x[2], to_y[3]]))
        for label, expected in ((0, to_y), (1, to_x)):
            torch.testing.assert_close(method.translate_to(image, torch.full((4,), label)), expected)


def test_the_rate_is_constant_for_half_the_steps_and_then_falls_to_zero():
    """Paper, section 4: 100 epochs constant, then linearly to zero over 100; the program's factor is 1 - (epoch - 99) / 101."""
    (phase,) = build().phases()
    assert {g["lr"] for o in phase.optimisers.values() for g in o.param_groups} == {2e-4}
    assert [phase.lr_scale(k, 200) for k in (0, 100)] == [1, 1]
    for epoch in (101, 150, 199):
        assert phase.lr_scale(epoch, 200) == pytest.approx(1 - (epoch - 99) / 101, abs=0.011)
    assert phase.lr_scale(200, 200) == 0


def test_score_is_the_mean_of_the_map_or_its_maximum_on_request():
    image = batch_of(build()).image
    with torch.no_grad():
        mean, largest = (build(score=s).predict(image) for s in ("mean", "max"))
    torch.testing.assert_close(mean.anomaly_map, (image - mean.healed).abs() / 2)
    torch.testing.assert_close(mean.score, mean.anomaly_map.mean((1, 2, 3)))
    assert torch.equal(largest.score, largest.anomaly_map.amax((1, 2, 3)))
    assert CycleGAN.Config().score == "mean"


@pytest.mark.parametrize("cls", [CycleGAN, CycleGANShape])
def test_half_precision_trains_and_answers_in_float32(cls):
    full, half = run(build(cls), -1), run(build(cls), -1, autocast=True)
    for group in full[0]:
        for term, value in full[0][group].items():
            assert half[0][group][term].dtype == torch.float32
            assert half[0][group][term].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), term
    method = build(cls)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = method.predict(batch_of(method).image)
    assert {t.dtype for t in (found.score, found.anomaly_map, found.healed, *found.maps.values())} == {torch.float32}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"lr": 0.0}, "lr"),
        ({"blocks": 0}, "blocks"),
        ({"decay_share": 1.5}, "decay_share"),
        ({"lambda_B": -1.0}, "negative"),
        ({"pool": -1}, "pool"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        CycleGAN.Config(**setting)


# Shape consistency


def stub(method, **functions):
    for name, function in functions.items():
        getattr(method, name).forward = function


def test_a_distortion_that_the_way_back_undoes_costs_the_shape_term_alone():
    """G' = T∘G, F' = F∘T⁻¹ is cycle-consistent for any T; here T moves the image four pixels to the right."""
    method = build(CycleGANShape, lambda_identity=0.0)
    square = -torch.ones(2, 1, 32, 32)
    square[..., 8:16, 8:16] = 1
    m = (square[:, 0] > 0).long()

    def bright(x):  # a segmenter that knows its task
        return 5 * torch.cat([-x, x], 1)

    stub(method, segmenter_healthy=bright, segmenter_diseased=bright)
    found = []
    for shift in (0, 4):
        stub(method, to_healthy=lambda x, s=shift: x.roll(s, 3), to_diseased=lambda y, s=shift: y.roll(-s, 3))
        t = method.translate(square, square)
        cycle = method.generator_loss(square, square, t)
        found.append((cycle["cyc_diseased"].item() + cycle["cyc_healthy"].item(), method.shape_loss(t, m, m).total.item()))
    (cycle, shape), (moved_cycle, moved_shape) = found
    assert cycle == moved_cycle == 0
    assert shape == pytest.approx(0, abs=1e-3)
    assert moved_shape == pytest.approx(2 * 10 * 64 / 1024, rel=0.01)  # 10 for each of the 64 pixels that are marked wrongly


def test_shape_terms_are_the_equations_and_reach_the_generator_of_their_direction():
    method = build(CycleGANShape, gamma=0.7)
    for s in SEGMENTERS:  # their last layers start at zero
        torch.nn.init.normal_(getattr(method, s).last.weight)
    b = batch_of(method)
    t = method.translate(b.image, b.healthy)
    losses = method.shape_loss(t, b.mask, b.healthy_mask)
    s_y, s_x = (getattr(method, s) for s in SEGMENTERS)
    torch.testing.assert_close(losses["shape_healthy"], 0.7 * F.cross_entropy(s_y(t.y_of_x), b.mask))
    torch.testing.assert_close(losses["shape_diseased"], 0.7 * F.cross_entropy(s_x(t.x_of_y), b.healthy_mask))
    for term, reached in (("shape_healthy", "to_healthy"), ("shape_diseased", "to_diseased")):
        for name in GENERATORS:
            found = torch.autograd.grad(
                losses[term], [*getattr(method, name).parameters()], retain_graph=True, allow_unused=True
            )
            assert any(g is not None and g.any() for g in found) == (name == reached)


def test_segmenters_learn_from_translations_with_the_outlines_of_their_source():
    method = build(CycleGANShape, lambda_synthetic=0.25)
    for s in SEGMENTERS:
        torch.nn.init.normal_(getattr(method, s).last.weight)
    b = batch_of(method)
    t = method.translate(b.image, b.healthy)
    found = method.segmenter_loss(b.image, b.healthy, b.mask, b.healthy_mask, t)
    s_y, s_x = (getattr(method, s) for s in SEGMENTERS)
    expected = {
        "real_healthy": F.cross_entropy(s_y(b.healthy), b.healthy_mask),
        "real_diseased": F.cross_entropy(s_x(b.image), b.mask),
        "synthetic_healthy": 0.25 * F.cross_entropy(s_y(t.y_of_x), b.mask),
        "synthetic_diseased": 0.25 * F.cross_entropy(s_x(t.x_of_y), b.healthy_mask),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    parameters = [*method.to_healthy.parameters(), *method.to_diseased.parameters()]
    assert all(g is None for g in torch.autograd.grad(found.total, parameters, allow_unused=True))


def test_joint_order():
    """Apart, segmenters and generators do not hear of each other; together, both do."""
    apart, joint = (run(build(CycleGANShape), i)[0] for i in range(2))
    shapes, synthetic = {"shape_healthy", "shape_diseased"}, {"synthetic_healthy", "synthetic_diseased"}
    assert not shapes & set(apart["G"])
    assert not synthetic & set(apart["S"])
    assert shapes < set(joint["G"])
    assert synthetic < set(joint["S"])
    assert {k: v.item() for k, v in apart["G"].items()} == {k: v.item() for k, v in joint["G"].items() if k not in shapes}
    for i in range(2):
        assert moved(build(CycleGANShape), i) == set(PARTS)


def test_third_party_order():
    """Segmenters on real images; generators and critics, from half way with L_shape; segmenters on both."""
    method = build(CycleGANShape, order="third-party")
    names = [p.name for p in method.phases()]
    assert names == ["segmenters", "translation", "shape", "synthetic"]
    expected = [set(SEGMENTERS), {*GENERATORS, *CRITICS}, {*GENERATORS, *CRITICS}, set(SEGMENTERS)]
    assert [moved(build(CycleGANShape, order="third-party"), i) for i in range(4)] == expected
    terms = [run(build(CycleGANShape, order="third-party"), i)[0] for i in range(4)]
    assert set(terms[0]["S"]) == {"real_healthy", "real_diseased"}
    assert "shape_healthy" not in terms[1]["G"]
    assert "shape_healthy" in terms[2]["G"]
    assert "synthetic_healthy" in terms[3]["S"]
    assert (method.gamma, method.lambda_synthetic) == (0.5, 0.5)
    assert (build(CycleGANShape).gamma, build(CycleGANShape).lambda_synthetic) == (1, 1)
    assert build(CycleGANShape, order="third-party", gamma=0.0).gamma == 0


@pytest.mark.parametrize("order", ["joint", "third-party"])
def test_without_synthetic_images_segmenters_see_real_ones_alone(order):
    method = build(CycleGANShape, order=order, synthetic=False)
    for i in range(len(method.phases())):
        losses = run(method, i)[0]
        assert set(losses.get("S", {"real_healthy": 0, "real_diseased": 0})) == {"real_healthy", "real_diseased"}


@pytest.mark.parametrize("order", ["joint", "third-party"])
def test_phases_share_the_steps_the_optimisers_and_one_schedule(order):
    method = build(CycleGANShape, order=order, steps=1000)
    phases = method.phases()
    assert sum(p.steps for p in phases) == 1000
    trained = [p for p in phases if "G" in p.optimisers]
    assert all(p.optimisers["G"] is trained[0].optimisers["G"] for p in trained)
    rates = [p.lr_scale(k, p.steps) for p in trained for k in range(p.steps)]
    (cyclegan,) = build(steps=len(rates)).phases()
    assert rates == [cyclegan.lr_scale(k, len(rates)) for k in range(len(rates))]
    for p in trained:  # a run of minutes has other steps, and the same shape
        assert p.lr_scale(7 * p.steps // 10, p.steps) == pytest.approx(p.lr_scale(7, 10), abs=0.01)


def test_the_dice_loss_is_added_on_request():
    b, terms = batch_of(build(CycleGANShape)), []
    for dice in (False, True):
        method = build(CycleGANShape, dice=dice)
        terms.append(method.segmenter_loss(b.image, b.healthy, b.mask, b.healthy_mask, None)["real_diseased"].item())
    p, y = 0.5, b.mask.float()  # segmenters start undecided
    assert terms[1] - terms[0] == pytest.approx(
        1 - (2 * p * y.sum() + 1).item() / (p * y.numel() + y.sum() + 1).item(), rel=1e-4
    )


def test_prediction_holds_what_each_segmenter_marks():
    method = build(CycleGANShape)
    for s in SEGMENTERS:
        torch.nn.init.normal_(getattr(method, s).last.weight)
    image = batch_of(method).image
    with torch.no_grad():
        found = method.predict(image)
        assert set(found.maps) == {"segmentation_0", "segmentation_1"}
        for i, name in enumerate(SEGMENTERS):
            logits = getattr(method, name)(image)
            expected = torch.sigmoid(logits[:, 1:] - logits[:, :1])
            torch.testing.assert_close(found.maps[f"segmentation_{i}"], expected)
    assert CycleGANShape.needs is Needs.SEGMENTED


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"gamma": -1.0}, "gamma"),
        ({"pretraining": 0.0}, "pretraining"),
        ({"pretraining": 0.5, "order": "third-party"}, "between 0 and 0.5"),
        ({"steps": 3, "order": "third-party"}, "4 phases"),
        ({"segmenter_width": 0}, "segmenter_width"),
    ],
)
def test_settings_of_the_shape_variant_that_cannot_work_are_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        CycleGANShape.Config(**setting)


def test_sizes_that_the_segmenters_cannot_take_are_refused_with_advice():
    config, _ = CycleGANShape.tiny()
    with pytest.raises(ConfigError, match="use 32 pixels, or fewer"):
        CycleGANShape(replace(config, segmenter_levels=4), Spec(height=28, width=32))
