"""DeScarGAN: its losses image by image, what a step does, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods.base import Optimisers
from healmap.methods.descargan import DeScarGAN
from healmap.types import Batch, Domains, Spec

LABELS = torch.tensor([1, 0, 1, 1, 0])
WEIGHTS = {"lambda_adv_d": 3.0, "lambda_gp": 7.0, "lambda_cls_d": 0.5, "lambda_adv_g": 2.0, "lambda_cls_g": 5.0}
IMAGE_WEIGHTS = {"lambda_id": 11.0, "lambda_rec": 13.0}


def build(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    config, spec = DeScarGAN.tiny()
    method = DeScarGAN(replace(config, **{"dropout": 0.0, **settings}), spec).to(dtype)
    with torch.no_grad():
        for p in method.D.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return method.train()


def pictures(n=5, dtype=torch.float64):
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


def label_is(c):
    return LABELS.eq(c)


def terms(method, labels=LABELS, noise=None):
    """Losses of one step before any update, and what went into them."""
    image, alpha = pictures(len(labels)), torch.rand(len(labels), 1, 1, 1, generator=torch.Generator().manual_seed(2)).double()
    x, e = method.prepare(image, labels, noise)
    fakes = method.fakes(x, e)
    still = tuple(f.detach() for f in fakes)
    return x, e, still, alpha, method.critic_loss(x, still, alpha), method.generator_loss(x, e, fakes)


def slope(method, between, c):
    between = between.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(method.D(between, c)[0].sum(), between)
    return (gradient.norm() - 1) ** 2


def test_papers_losses_are_expectations_over_images():
    """Eqs. (1) to (8), one image at a time but for the generator's batch norm, whose calls hold one class."""
    method = build(**WEIGHTS, **IMAGE_WEIGHTS)
    x, e, _, alpha, d, g = terms(method)
    image = pictures()
    assert all(float(part.abs().max()) == 0 for part in e)
    by_class = [image[label_is(c)] for c in (0, 1)]
    for c in (0, 1):
        assert torch.equal(x[c], by_class[c])
    same = [method.G(by_class[c], c) for c in (0, 1)]
    other = [method.G(by_class[c], 1 - c) for c in (0, 1)]  # by the class they come from
    back = [method.G(other[c], c) for c in (0, 1)]
    real = fake = cls_d = gp = adv = cls_g = identity = rec = 0
    k = 0
    for c in (0, 1):
        for i, one in enumerate(by_class[c]):
            source, logits = method.D(one[None], c)
            real -= source.mean()
            cls_d += F.cross_entropy(logits, torch.tensor([c]))
            source, logits = method.D(other[c][i][None], 1 - c)
            fake += source.mean()
            adv -= source.mean()
            cls_g += F.cross_entropy(logits, torch.tensor([1 - c]))
            artificial = other[1 - c][i % len(other[1 - c])]
            gp += slope(method, (alpha[k] * one + (1 - alpha[k]) * artificial)[None], c)
            identity += (one - same[c][i]).square().mean().sqrt()
            rec += (one - back[c][i]).square().mean().sqrt()
            k += 1
    expected = {
        "real": 3 * real, "fake": 3 * fake, "gp": 3 * 7 * gp, "cls": 0.5 * cls_d,
        "adv": 2 * adv, "cls_g": 5 * cls_g, "id": 11 * identity, "rec": 13 * rec,
    }  # fmt: skip
    for name, value in expected.items():
        found = g["cls"] if name == "cls_g" else d[name] if name in d else g[name]
        torch.testing.assert_close(found, value / len(image), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("losses", ["mended", "released"])
def test_released_losses_are_sums_of_class_means(losses):
    method = build(losses=losses, **WEIGHTS, **IMAGE_WEIGHTS)
    noise = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(3)).double()
    _, _, fakes, alpha, d, g = terms(method, noise=noise)
    order = LABELS.argsort(stable=True)
    label, e = LABELS[order], 0.05 * noise[order]
    x = pictures()[order] + e
    share = [int((label == c).sum()) / (5 if losses == "mended" else 10) for c in (0, 1)]
    found = dict.fromkeys(("real", "fake", "gp", "cls", "adv", "cls_g", "id", "rec"), torch.zeros(()).double())
    for c in (0, 1):
        mine, to_c = label == c, method.G(x, c) + e
        torch.testing.assert_close(fakes[c], to_c)
        source, logits = method.D(to_c, c)
        found["fake"] = found["fake"] + share[c] * source.mean()
        found["adv"] = found["adv"] - source.mean()
        found["cls_g"] = found["cls_g"] + F.cross_entropy(logits, torch.full((5,), c))
        source, logits = method.D(x[mine], c)
        found["real"] = found["real"] - share[c] * source.mean()
        found["cls"] = found["cls"] + share[c] * F.cross_entropy(logits, label[mine])
        between = alpha * x + (1 - alpha) * to_c
        found["gp"] = found["gp"] + torch.stack([slope(method, one[None], c) for one in between]).mean()
        found["id"] = found["id"] + F.mse_loss(to_c[mine], x[mine])
        back = method.G((method.G(x, 1 - c) + e)[mine], c)
        for i, own in enumerate(e[mine]):  # the slip: the noise of every image of the class
            met = own if losses == "released" else e[mine][i]
            pairs = back + met - x[mine] if losses == "released" else (back[i] + met - x[mine][i])[None]
            found["rec"] = found["rec"] + pairs.square().mean() / mine.sum()
    factors = {**dict.fromkeys(("real", "fake"), 3), "gp": 7, "cls": 0.5, "adv": 2, "cls_g": 5, "id": 11, "rec": 13}
    for name, value in found.items():
        ours = g["cls"] if name == "cls_g" else d[name] if name in d else g[name]
        torch.testing.assert_close(ours, factors[name] * value, rtol=1e-9, atol=1e-12)


def test_noise_is_the_same_for_an_image_and_what_is_made_of_it():
    method = build(losses="released", noise=0.05)
    torch.manual_seed(5)
    x, e = method.prepare(pictures(), LABELS)
    clean = [pictures()[label_is(c)] for c in (0, 1)]
    assert all(torch.equal(x[c], clean[c] + e[c]) for c in (0, 1))
    assert 0 <= min(float(part.min()) for part in e) < 0.01
    assert 0.04 < max(float(part.max()) for part in e) <= 0.05


@pytest.mark.parametrize("losses", ["paper", "mended", "released"])
@pytest.mark.parametrize("c", [0, 1])
def test_a_batch_of_one_class_is_no_accident(losses, c):
    method = build(torch.float32, losses=losses, n_critic=1)
    image = pictures(dtype=torch.float32)[:3]
    phase = method.phases()[0]
    before = [p.clone() for p in method.parameters()]
    found = phase.step(repeat(Batch(image, torch.full((3,), c))), 0, Optimisers(phase.optimisers))
    assert all(bool(torch.isfinite(t)) for group in found.values() for t in group.values())
    assert float(found["D"]["gp"].detach()) > 0
    assert any(not torch.equal(p, q) for p, q in zip(before, method.parameters(), strict=True))
    assert all(bool(torch.isfinite(p).all()) for p in method.parameters())


@pytest.mark.parametrize("losses", ["paper", "released"])
def test_the_generator_moves_at_every_nth_step_and_neither_touches_the_other(losses):
    method = build(torch.float32, losses=losses, n_critic=3)
    phase = method.phases()[0]
    optimisers, batch = Optimisers(phase.optimisers), Batch(pictures(dtype=torch.float32), LABELS)
    descend, seen = optimisers.descend, []

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        descend(which, loss)
        seen.append((which, {m for m in "GD" if any(p.grad is not None for p in getattr(method, m).parameters())}))

    optimisers.descend = watched
    for k in range(3):
        phase.step(repeat(batch), k, optimisers)
    assert seen == [("D", {"D"})] * 3 + [("G", {"G"})]


def calls(method, losses_step):
    seen = []
    forward = method.G.forward
    method.G.forward = lambda x, c: seen.append((len(x), c)) or forward(x, c)
    phase = method.phases()[0]
    phase.step(repeat(Batch(pictures(dtype=torch.float32), LABELS)), losses_step, Optimisers(phase.optimisers))
    return seen


def test_what_goes_through_the_generator():
    """Two healthy, three diseased images. In the paper's step the critic needs each image once, in the released one twice."""
    assert calls(build(torch.float32, n_critic=5), 0) == [(3, 0), (2, 1)]
    assert calls(build(torch.float32, n_critic=5), 4) == [(3, 0), (2, 1), (2, 0), (3, 1), (2, 0), (3, 1)]
    assert calls(build(torch.float32, n_critic=5, losses="released"), 0) == [(5, 0), (5, 1)]
    assert calls(build(torch.float32, n_critic=5, losses="released"), 4) == [(5, 0), (5, 1), (2, 0), (3, 1)]


def test_flips():
    method = build(torch.float32, flip_vertical=True)
    image, given = pictures(64, torch.float32), []
    prepare = method.prepare
    method.prepare = lambda x, label: given.append(x) or prepare(x, label)
    phase = method.phases()[0]
    torch.manual_seed(0)
    phase.step(repeat(Batch(image, torch.arange(64) % 2)), 0, Optimisers(phase.optimisers))
    turned = [torch.equal(a, b.flip(1)) for a, b in zip(given[0], image, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(given[0], image, strict=True)]
    assert all(a != b for a, b in zip(turned, same, strict=True))
    assert 16 < sum(turned) < 48


@pytest.mark.parametrize("score", ["class", "map-mean", "map-max"])
def test_prediction(score):
    method = build(score=score, losses="released").eval()
    image = pictures()
    with torch.no_grad():
        found = method.predict(image)
        alone = torch.cat([method.train().G(one, 0) for one in image.split(1)])  # as the authors' scripts
        logits = method.eval().D(image, 0)[1]
    torch.testing.assert_close(found.healed, alone)
    probabilities = found.maps["probabilities"]
    torch.testing.assert_close(probabilities, logits.softmax(1))
    difference = ((image - found.healed).abs() / 2).flatten(1)
    expected = {"class": probabilities[:, 1], "map-mean": difference.mean(1), "map-max": difference.amax(1)}
    torch.testing.assert_close(found.score, expected[score])


def test_translation_takes_each_image_to_its_own_class():
    method = build().eval()
    image = pictures()
    with torch.no_grad():
        found = method.translate_to(image, LABELS)
        for i, c in enumerate(LABELS):
            torch.testing.assert_close(found[i][None], method.translate(image[i][None], int(c)))
        torch.testing.assert_close(method.translate_to(image, torch.zeros(5, dtype=torch.int64)), method.heal(image))


def test_dropout_is_for_training():
    method = build(torch.float32, dropout=0.5)
    h = method.D.features(pictures(dtype=torch.float32))
    assert not torch.equal(method.D.logits(h), method.D.logits(h))
    method.eval()
    assert torch.equal(method.D.logits(h), method.D.logits(h))


@pytest.mark.parametrize(
    ("settings", "spec", "says"),
    [
        ({}, Spec(domains=Domains(("a", "b", "c"))), "3 classes"),
        ({}, Spec(domains=Domains(("a", "b"), exclusive=False)), "2 attributes"),
        ({}, Spec(height=100, width=128), "96|104"),
        ({}, Spec(height=24, width=24), "32"),
        ({"lambda_rec": -1.0}, None, "negative"),
        ({"noise": -0.1}, None, "negative"),
        ({"dropout": 1.5}, None, "dropout"),
        ({"n_critic": 0}, None, "n_critic"),
    ],
)
def test_bad_settings_are_refused(settings, spec, says):
    config, tiny = DeScarGAN.tiny()
    with pytest.raises(ConfigError, match=says):
        DeScarGAN(replace(config, **settings), spec or tiny)


def test_fact_settings():
    """Section 4: weights, steps per move, Adam; authors' code: batches of 10, gradients clipped at 10, noise of 0.05."""
    e, released, film = (recipes.get(name) for name in ("descargan", "descargan-released", "descargan-chexpert"))
    m = e.method
    assert (m.lambda_adv_d, m.lambda_gp, m.lambda_cls_d) == (20, 10, 5)
    assert (m.lambda_adv_g, m.lambda_cls_g, m.lambda_id, m.lambda_rec) == (1, 1, 50, 50)
    assert (m.n_critic, m.lr, m.betas, m.decay, m.losses) == (5, 1e-4, (0.5, 0.999), "constant", "paper")
    assert (e.data.size, e.data.batch_size, e.training.clip) == (256, 10, 0)
    assert m.steps == 500 * 4000 / e.data.batch_size
    assert (released.method.losses, released.method.noise, released.training.clip) == ("released", 0.05, 10)
    assert (m.flip_vertical, film.method.flip_vertical) == (True, False)
