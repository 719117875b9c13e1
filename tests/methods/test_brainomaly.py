"""Brainomaly, and what its settings make of it: SimGAN, feature loss + GAN."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
import toys
from safetensors.torch import save_file
from torch import nn

from healmap import recipes
from healmap.errors import ConfigError, Interrupted
from healmap.methods import weights
from healmap.methods.base import Optimisers
from healmap.methods.brainomaly import Brainomaly
from healmap.methods.features import feature_l1, load_vgg16
from healmap.networks.vgg import VGG16
from healmap.training import train_run
from healmap.training.loop import Loop
from healmap.types import Batch, Spec

SIMGAN = {"adversarial": "log", "lambda_gp": 0.0, "lambda_id": 0.0, "lambda_self": 7.5, "n_critic": 1}


def build(channels=1, seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = Brainomaly.tiny()
    return Brainomaly(replace(config, **settings), replace(spec, channels=channels))


def batch_of(method, n=4, seed=1):
    g, s = torch.Generator().manual_seed(seed), method.spec
    a, b = (torch.rand(n, s.channels, s.height, s.width, generator=g) * 2 - 1 for _ in range(2))
    return Batch(a, healthy=b)


def run(method, steps, seeds=repeat(1)):
    phase = method.phases()[0]
    optimisers, batches = Optimisers(phase.optimisers), (batch_of(method, seed=s) for s in seeds)
    return [phase.step(batches, k, optimisers) for k in range(steps)]


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random weights under all the public names, those of the classifier cut to a number each."""
    torch.manual_seed(3)
    state = {k: v.clone() for k, v in VGG16().state_dict().items()}
    above = {"weight": torch.zeros(512, 512, 3, 3, dtype=torch.float16), "bias": torch.zeros(512)}
    state |= {f"features.{n}.{w}": above[w].clone() for n in (21, 24, 26, 28) for w in above}
    state |= {f"classifier.{n}.{w}": torch.zeros(1) for n in (0, 3, 6) for w in ("weight", "bias")}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(state, path)
    return path


def test_one_plane_is_added_to_every_channel_before_the_tanh():
    method = build(channels=3).double()
    x = batch_of(method).image.double()
    with torch.no_grad():
        added, healed = method.G(x), method.translate(x)
    assert added.shape == (4, 1, 32, 32)
    torch.testing.assert_close(torch.atanh(healed) - x, added.expand(-1, 3, -1, -1))
    assert torch.equal(method.heal(x), healed)


def test_losses_are_the_cards():
    method = build()
    a, b = (t.double() for t in (batch_of(method).image, batch_of(method).healthy))
    method.double()
    ta, tb = method.translate(a), method.translate(b)
    half = torch.full((4, 1, 1, 1), 0.5, dtype=torch.float64)
    d, g = method.critic_loss(b, ta.detach(), half), method.generator_loss(a, b, ta, tb)
    between = ((b + ta.detach()) / 2).requires_grad_()
    slopes = torch.autograd.grad(method.D.source(between).sum(), between)[0]
    penalty = sum((s.norm() - 1) ** 2 for s in slopes) / 4
    found = {k: v.item() for k, v in d.items()} | {k: v.item() for k, v in g.items()}
    expected = {
        "real": -method.D.source(b).mean().item(),
        "fake": method.D.source(ta).mean().item(),
        "gp": 10 * penalty.item(),
        "adv": -method.D.source(ta).mean().item(),
        "id": (tb - b).abs().mean().item(),
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_the_critic_moves_at_each_step_and_the_generator_at_every_nth(n_critic):
    method = build(n_critic=n_critic)
    phase = method.phases()[0]
    for k in range(3):
        before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in "GD"}
        losses = phase.step(repeat(batch_of(method)), k, Optimisers(phase.optimisers))
        moved = {
            m: any(not torch.equal(p, q) for p, q in zip(before[m], getattr(method, m).parameters(), strict=True)) for m in "GD"
        }
        assert moved == {"D": True, "G": (k + 1) % n_critic == 0}
        assert ("G" in losses) == moved["G"]


@pytest.mark.parametrize(("settings", "seen"), [({}, [4, 8, 4, 8]), (SIMGAN, [4, 4, 4, 4])])
def test_healthy_images_are_translated_for_the_identity_alone(settings, seen):
    """Images through G in each step; one translation serves both updates."""
    method, found = build(**settings), []
    forward = method.G.forward
    method.G.forward = lambda x: found.append(len(x)) or forward(x)
    run(method, 4)
    assert found == seen


def test_terms_follow_the_settings():
    assert set(run(build(), 2)[1]["G"]) == {"adv", "id"}
    simgan = run(build(**SIMGAN), 1)[0]
    assert set(simgan["D"]) == {"real", "fake"}
    assert set(simgan["G"]) == {"adv", "self"}


def test_simgans_terms_are_its_equations():
    """SimGAN's two losses as means: -log D(real) - log(1 - D(refined)), and -log D(refined) + λ |refined - input|."""
    method = build(**SIMGAN).double()
    a, b = (t.double() for t in (batch_of(method).image, batch_of(method).healthy))
    ta = method.translate(a)
    real, refined = (torch.sigmoid(method.D.source(x)) for x in (b, ta))
    d, g = method.critic_loss(b, ta.detach()), method.generator_loss(a, b, ta, ta[:0])
    torch.testing.assert_close(d.total, -real.log().mean() - (1 - refined).log().mean())
    torch.testing.assert_close(g.total, -refined.log().mean() + 7.5 * (ta - a).abs().mean())


def test_the_pool_shows_the_critic_earlier_images_and_stays_out_of_weights_files():
    method, shown = build(pool=4, **SIMGAN), []
    critic_loss = method.critic_loss
    method.critic_loss = lambda b, healed: shown.append(healed) or critic_loss(b, healed)
    run(method, 6, seeds=range(6))
    assert int(method.pool.count) == 4
    late = torch.cat(shown[1:]).flatten(1)
    assert any((late == early).all(1).any() for early in shown[0].flatten(1)), "half of what it sees is from the pool"
    assert not any(name.startswith("pool") for name in weights.kept(method))
    assert any(name.startswith("pool") for name in method.state_dict())


@pytest.mark.parametrize("kind", ["pool", "features"])
def test_stopped_and_resumed_ends_in_the_same_place(kind, vgg_file, tmp_path, monkeypatch):
    """The contract's resume, with the parts that its default settings leave out."""
    extra = {"pool": 3} if kind == "pool" else {"lambda_features": 1.0, "features": str(vgg_file)}

    def train(out, **how):
        toy = toys.toy("brainomaly", tmp_path / "phantoms", steps=4, save_every=2, method={**SIMGAN, **extra})
        return train_run(toy.experiment, toy.train, toy.val, tmp_path / out, quiet=True, **how)

    whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == 3 else "")
        with pytest.raises(Interrupted):
            train("parts")
    assert toys.digests(train("parts", resume=True)) == toys.digests(whole)
    method, _ = weights.load(whole / "weights" / "last.safetensors")
    with torch.no_grad():
        assert bool(method.predict(batch_of(method).image).score.isfinite().all())


def test_settings_that_cannot_work_are_refused():
    for name, value in {"lr": 0.0, "n_critic": 0, "decay_share": 2.0, "pool": -1}.items():
        with pytest.raises(ConfigError, match=name):
            Brainomaly.Config(**{name: value})
    with pytest.raises(ConfigError, match="lambda_self"):
        Brainomaly.Config(lambda_self=-1.0)
    with pytest.raises(ConfigError, match="multiple of 4"):
        Brainomaly(Brainomaly.tiny()[0], Spec(height=30, width=32))


# Feature loss + GAN


def test_fact_vgg16_up_to_relu4_2():
    net = VGG16()
    assert sum(p.numel() for p in net.parameters()) == 5_275_456
    names = [n for n, _ in net.named_parameters() if n.endswith("weight")]
    assert names == [f"features.{n}.weight" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19)]
    assert set(net.state_dict()) == {n for n, _ in net.named_parameters()}
    assert net(torch.zeros(1, 1, 32, 32)).shape == (1, 512, 4, 4)


def test_vgg16_sees_grey_images_as_imagenet_was_seen():
    torch.manual_seed(0)
    net, x = VGG16().double(), torch.rand(2, 1, 16, 16, dtype=torch.float64) * 2 - 1
    h = torch.cat([(x + 1) / 2] * 3, 1)
    h = (h - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    parts = dict(net.features.named_children())
    for n in range(21):
        layer = parts[str(n)]
        h = (
            F.conv2d(h, layer.weight, layer.bias, padding=1)
            if isinstance(layer, nn.Conv2d)
            else (F.max_pool2d(h, 2) if n in (4, 9, 16) else h.clamp(min=0))
        )
    torch.testing.assert_close(net(x), h, rtol=1e-6, atol=1e-7)


def test_without_a_file_the_feature_loss_is_refused_and_says_what_to_give():
    recipe = recipes.get("feature-loss-gan")
    with pytest.raises(ConfigError, match=r"method\.features=FILE"):
        Brainomaly(recipe.method, Spec(height=128, width=128))
    with pytest.raises(ConfigError, match="no such file"):
        build(lambda_features=1.0, features="nowhere.safetensors").phases()


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_the_feature_loss_is_the_distance_of_features_and_moves_g_alone(vgg_file, tmp_path, kind):
    phi, path = load_vgg16(vgg_file), vgg_file
    if kind == "pth":
        path = tmp_path / "vgg16.pth"
        torch.save(phi.state_dict(), path)
    method = build(**{**SIMGAN, "lambda_self": 0.0}, lambda_features=2.0, features=str(path))
    a = batch_of(method).image
    ta = method.translate(a)
    kept = phi.state_dict()
    losses = run(method, 1)[0]
    assert set(losses["G"]) == {"adv", "features"}
    expected = 2 * (phi(ta) - phi(a)).abs().mean()
    assert losses["G"]["features"].item() == pytest.approx(expected.item(), rel=1e-4)
    loss = feature_l1(phi, ta, a.requires_grad_())
    gradients = torch.autograd.grad(loss, [*method.G.parameters()], retain_graph=True)
    assert any(g.abs().sum() > 0 for g in gradients)
    assert not any(p.requires_grad for p in phi.parameters())
    assert all(torch.equal(v, kept[k]) for k, v in phi.state_dict().items())


def test_what_was_trained_with_features_needs_no_file_to_predict(vgg_file, tmp_path):
    method = build(lambda_features=1.0, features=str(tmp_path / "gone.pth"), n_critic=1)
    assert not any("features" in name for name in method.state_dict())
    card = Brainomaly(method.config, method.spec)
    with torch.no_grad():
        assert card.predict(batch_of(method).image).score.shape == (4,)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "nan", "junk", "list"])
def test_files_that_are_no_vgg16_are_refused(vgg_file, tmp_path, fault):
    state = dict(VGG16().state_dict())
    path = tmp_path / "vgg.pth"
    if fault == "missing":
        del state["features.19.bias"]
    elif fault == "unknown":
        state["features.1.weight"] = torch.zeros(64)  # a norm's
    elif fault == "shape":
        state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    elif fault == "nan":
        state["features.5.bias"] = torch.full((128,), float("nan"))
    torch.save([state] if fault == "list" else state, path)
    if fault == "junk":
        path.write_bytes(b"not a file of tensors")
    with pytest.raises(ConfigError) as caught:
        load_vgg16(path)
    assert "vgg.pth" in str(caught.value)
    assert caught.value.hint
