"""ResNet-50 with CAM, DenseNet-169, D_cls: sizes, class weights, augmentation, weights files, and that they learn."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import repeat

import pytest
import torch
import toys
from safetensors.torch import save_file

from healmap import recipes
from healmap.errors import ConfigError, UsageError
from healmap.methods import cam, weights
from healmap.methods.augment import Augmentation, augment
from healmap.methods.backbone import BackboneConfig
from healmap.methods.base import Optimisers
from healmap.methods.classifier import Seen
from healmap.methods.dcls import DCls
from healmap.methods.densenet169 import DenseNet169
from healmap.methods.resnet50_cam import ResNet50CAM
from healmap.networks.densenet import densenet169
from healmap.networks.resnet import resnet18
from healmap.networks.vgg import DEVIATION, MEAN
from healmap.training import train_run
from healmap.types import Batch, Domains, Spec

METHODS = {"resnet50-cam": ResNet50CAM, "densenet169": DenseNet169, "dcls": DCls}
OFF = Augmentation(rotate=0, zoom=0, shift=0, brightness=0, gamma=0)
THREE = Domains(("healthy", "a", "b"))


def build(cls, *, domains=None, channels=1, **settings):
    torch.manual_seed(0)
    config, spec = cls.tiny()
    return cls(replace(config, **settings), replace(spec, channels=channels, domains=domains or Domains())).eval()


def pictures(method, n=4, seed=1):
    s = method.spec
    return torch.rand(n, s.channels, s.height, s.width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def parameters(method):
    return sum(p.numel() for p in method.parameters())


# Networks


@pytest.mark.parametrize(("stages", "side", "three", "grey"), [(4, 8, 23_512_130, 23_505_858), (3, 16, 8_545_346, 8_539_074),
                                                               (2, 32, 1_445_954, 1_439_682)])  # fmt: skip
def test_fact_resnet50_at_three_depths(stages, side, three, grey):
    """Fixed-Point GAN, section 4.2: maps of 8 x 8, 16 x 16 and 32 x 32 at 256 px."""
    with torch.device("meta"):
        for channels, count in ((3, three), (1, grey)):
            method = ResNet50CAM(ResNet50CAM.Config(stages=stages), Spec(channels=channels, height=256, width=256))
            assert parameters(method) == count
            assert method.net.last_map(torch.empty(1, channels, 256, 256)).shape[2:] == (side, side)


def test_fact_densenet169_and_dcls():
    """12,481,538 with one channel and two classes; of DeScarGAN's discriminator encoder, conv2 and classifier."""
    with torch.device("meta"):
        spec = Spec(height=256, width=256)
        dense, dcls = DenseNet169(DenseNet169.Config(), spec), DCls(DCls.Config(), spec)
        assert parameters(dense) == 12_481_538
        assert parameters(dcls) == 3_485_824 + 4_719_616 + 524_482
        for method, channels in ((dense, 1664), (dcls, 512)):
            assert method.net.last_map(torch.empty(1, 1, 256, 256)).shape == (1, channels, 8, 8)


def test_dcls_is_the_classifier_of_the_discriminator():
    from healmap.networks.descargan import Discriminator

    method, d = build(DCls), Discriminator(1, (64, 64), width=4).eval()
    state = {k: v for k, v in d.state_dict().items() if not k.startswith("conv_")}
    method.net.load_state_dict(state)
    with torch.no_grad():
        x = pictures(method)
        torch.testing.assert_close(method.net(x), d.logits(d.features(x)))


def test_fact_recipes():
    """Fixed-Point GAN, section 4.2: three depths at 256 px, lesions above ten pixels. DeScarGAN, section 4: D's optimiser."""
    found = [recipes.get(f"resnet50-cam{n}") for n in ("", "-16", "-32")]
    assert [e.method.stages for e in found] == [4, 3, 2]
    assert all((e.data.size, e.detection.min_area, e.method.backbone.weights) == (256, 10, "") for e in found)
    dense, dcls = recipes.get("densenet169"), recipes.get("dcls")
    assert (dense.data.size, dense.method.growth, dense.method.stages) == (256, 32, 4)
    assert (dcls.data.size, dcls.data.batch_size, dcls.method.lr, dcls.method.betas) == (256, 10, 1e-4, (0.5, 0.999))
    small = recipes.get("resnet50-cam-small")
    assert (small.data.size, small.method.stages, small.method.width) == (64, 2, 64)


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_cannot_work(name):
    cls = METHODS[name]
    config, spec = cls.tiny()
    with pytest.raises(ConfigError, match=r"2 attributes.*domain_column"):
        cls(config, replace(spec, domains=Domains(("effusion", "oedema"), exclusive=False)))
    with pytest.raises(ConfigError, match=r"single place.*use"):
        cls(config, replace(spec, width=15))
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"betas": (0.9, 1.0)}, {"decay_share": 1.5}):
        with pytest.raises(ConfigError):
            replace(config, **wrong)
    for wrong in ({"rotate": 200.0}, {"zoom": 1.0}, {"gamma": -0.1}):
        with pytest.raises(ConfigError, match=r"use|give"):
            Augmentation(**wrong)


@pytest.mark.parametrize(
    ("cls", "settings", "words"),
    [
        (ResNet50CAM, {"backbone": BackboneConfig(name="filters")}, "not this method's.*resnet50, resnet18, wide_resnet50_2"),
        (ResNet50CAM, {"backbone": BackboneConfig(name="densenet169")}, "not this method's"),
        (ResNet50CAM, {"stages": 5}, "stages 5"),
        (ResNet50CAM, {"backbone": BackboneConfig(name="resnet50", self_steps=5)}, "self_steps.*leave it out"),
        (DenseNet169, {"backbone": BackboneConfig(name="densenet169", self_lr=1.0)}, "self_lr.*leave it out"),
        (DenseNet169, {"stages": 0}, "stages 0"),
        (ResNet50CAM, {"backbone": BackboneConfig(name="resnet50", weights="w"), "width": 8}, "width 64"),
        (DenseNet169, {"backbone": BackboneConfig(name="resnet50")}, "not this method's.*densenet169"),
        (DenseNet169, {"backbone": BackboneConfig(name="densenet169", weights="w"), "growth": 8}, "growth 32"),
    ],
)
def test_backbones_that_do_not_belong(cls, settings, words):
    with pytest.raises(ConfigError, match=words):
        cls.Config(**settings)


# Maps and scores


@pytest.mark.parametrize("name", ["resnet50-cam", "densenet169"])
def test_grad_cam_through_the_same_call_is_the_cam_by_places(name):
    plain, grad = build(METHODS[name]), build(METHODS[name], cam="grad")
    x = pictures(plain)
    with torch.no_grad():
        a, b, places = plain.predict(x), grad.predict(x), plain.net.last_map(x)[0, 0].numel()
    assert torch.equal(a.score, b.score)
    torch.testing.assert_close(a.anomaly_map, b.anomaly_map * places)
    assert a.anomaly_map.any()
    assert all(p.grad is None for p in grad.parameters())


def test_dcls_maps():
    """Its CAM is the map by place, whose sum is the log-odds without biases; Grad-CAM is another one."""
    plain, grad = build(DCls), build(DCls, cam="grad")
    for method in (plain, grad):
        for k, p in method.net.named_parameters():
            if k.startswith("linearclass") and k.endswith("bias"):
                torch.nn.init.zeros_(p)
    x = pictures(plain)
    with torch.no_grad():
        logits, evidence = plain.evidence(plain.net.last_map(x))
        torch.testing.assert_close(evidence.mean((1, 2, 3)), cam.log_odds(logits))
        assert not torch.allclose(grad.evidence(grad.net.last_map(x))[1], evidence / 4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["cam", "grad"])
def test_several_diseases_are_one_score(name, kind):
    method = build(METHODS[name], domains=THREE, cam=kind).double()
    x = pictures(method).double()
    with torch.no_grad():
        found = method.predict(x)
    p = found.maps["probabilities"]
    assert p.shape == (4, 3)
    torch.testing.assert_close(p.sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found.score, 1 - p[:, 0])
    assert found.score.dtype == found.anomaly_map.dtype == torch.float64
    assert found.anomaly_map.min() >= 0


# Class weights


def test_classes_count_the_same_whatever_their_share():
    """w_c = n / (K n_c) of what was seen; with 30 healthy and 10 diseased the loss is the mean of the two classes' means."""
    method = build(DCls)
    method.seen.counts.copy_(torch.tensor([30, 10]))
    torch.testing.assert_close(method.seen.weights(), torch.tensor([40 / 60, 40 / 20]))
    label = torch.tensor([0] * 30 + [1] * 10)
    logits = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    each = -logits.log_softmax(1)[torch.arange(40), label]
    found = method.loss(logits, label)["cross_entropy"]
    torch.testing.assert_close(found, (each[:30].mean() + each[30:].mean()) / 2)
    plain = build(DCls, balance="none").loss(logits, label)["cross_entropy"]
    torch.testing.assert_close(plain, each.mean())


def test_shares_are_counted_as_training_goes_on():
    seen = Seen(3)
    torch.testing.assert_close(seen.weights(), torch.ones(3))
    for label in ([0, 0, 1], [2, 0, 0]):
        seen.add(torch.tensor(label))
    assert seen.counts.tolist() == [4, 1, 1]
    torch.testing.assert_close(seen.weights(), torch.tensor([6 / 12, 6 / 3, 6 / 3]))
    rare = Seen(2)
    rare.add(torch.tensor([0] * 18))
    torch.testing.assert_close(rare.weights(), torch.tensor([19 / 36, 19 / 2]))  # the other counts as one
    rare.add(torch.tensor([1, 1]))
    torch.testing.assert_close(rare.weights(), torch.tensor([20 / 36, 20 / 4]))
    method = build(ResNet50CAM, domains=THREE, augment=OFF).train()
    phase = method.phases()[0]
    phase.step(repeat(Batch(pictures(method), torch.tensor([2, 0, 2, 2]))), 0, Optimisers(phase.optimisers))
    assert method.seen.counts.tolist() == [1, 0, 3]
    assert "seen.counts" in method.state_dict()
    assert "seen.counts" not in weights.kept(method)


# Augmentation


def test_augmentation_that_is_off_moves_nothing_and_draws_nothing():
    x, before = torch.rand(4, 1, 16, 16) * 2 - 1, torch.get_rng_state()
    assert augment(x, OFF) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("on", [f.name for f in fields(Augmentation)])
def test_every_change_changes_images_each_by_itself_and_keeps_the_range(on):
    torch.manual_seed(0)
    x = (torch.rand(1, 1, 16, 12) * 2 - 1).repeat(16, 1, 1, 1)
    x[..., 0, 0], x[..., 5, 5] = 1.0, -1.0
    most = {"rotate": 180.0, "flip_vertical": True}.get(on, 0.9)
    y = augment(x, replace(OFF, **{on: most}))
    assert y.shape == x.shape
    assert y.min() >= -1
    assert y.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in y}) == (2 if on == "flip_vertical" else 16)
    black = torch.full((4, 1, 8, 8), -1.0)
    torch.testing.assert_close(augment(black, replace(OFF, **{on: most})), black)


def test_changes_of_place_are_as_large_as_they_say():
    """A disc on a lying image: turned it stays a disc of its size, about the centre; shifted it goes so far at most."""
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")

    def disc(r, c):
        return (4 - ((row - r) ** 2 + (column - c) ** 2).sqrt()).clamp(0, 1).repeat(64, 1, 1, 1) * 2 - 1

    def measure(y):
        v = (y[:, 0] + 1) / 2
        mass = v.sum((1, 2))
        return mass, (v * row).sum((1, 2)) / mass, (v * column).sum((1, 2)) / mass

    area = measure(disc(15.5, 31.5))[0][0]
    mass, r, c = measure(augment(disc(15.5, 40.0), replace(OFF, rotate=180.0)))
    torch.testing.assert_close(mass, area.expand(64), rtol=0.03, atol=0)
    distance = ((r - 15.5) ** 2 + (c - 31.5) ** 2).sqrt()
    torch.testing.assert_close(distance, torch.full((64,), 8.5), rtol=0, atol=0.05)
    _, r, c = measure(augment(disc(15.5, 31.5), replace(OFF, shift=0.125)))
    assert 3 < (r - 15.5).abs().max() <= 4.01
    assert 6 < (c - 31.5).abs().max() <= 8.01
    mass, _, _ = measure(augment(disc(15.5, 31.5), replace(OFF, zoom=0.5)))
    assert 0.25 * 0.95 < (mass / area).min() < 0.4
    assert 1.8 < (mass / area).max() < 2.25 * 1.05


def test_augmentation_is_the_same_in_half_precision():
    x, found = torch.rand(4, 1, 64, 64) * 2 - 1, []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(augment(x, Augmentation(flip_vertical=True)))
    assert torch.equal(*found)


# Weights files


def public(network, path):
    """Random numbers under the public names, 1000 classes included."""
    torch.manual_seed(5)
    state = {k: torch.rand_like(v) + 0.1 if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, path)
    return state


@pytest.mark.parametrize(
    ("cls", "name", "network", "settings"),
    [
        (ResNet50CAM, "resnet18", resnet18, {"stages": 2}),
        (DenseNet169, "densenet169", densenet169, {"stages": 1}),
    ],
)
def test_public_weights_fill_the_trunk_and_not_the_head(tmp_path, cls, name, network, settings):
    path = tmp_path / "w.safetensors"
    state = public(network(), path)
    spec = Spec(height=32, width=32)
    method = cls(cls.Config(backbone=BackboneConfig(name=name, weights=str(path)), **settings), spec).eval()
    head = method.net.head.weight.clone()
    method.phases()
    for k, v in method.net.trunk.state_dict().items():
        assert torch.equal(v, state[k]), k
    assert torch.equal(method.net.head.weight, head)
    read = {f"net.trunk.{k}" for k in state if not k.startswith(method.net.trunk.spare)}
    assert read | {"net.head.weight", "net.head.bias"} == set(weights.kept(method))  # every tensor is accounted for
    # A grey image is seen as ImageNet's are.
    x = pictures(method)
    rgb = (((x + 1) / 2).repeat(1, 3, 1, 1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(method.net.last_map(x), method.net.trunk.stages(rgb)[-1])
    # What was trained from them needs the file no more.
    saved = weights.save(method, tmp_path / "own.safetensors", {})
    path.unlink()
    loaded, _ = weights.load(saved)
    with torch.no_grad():
        assert torch.equal(loaded.predict(x).score, method.predict(x).score)
    with pytest.raises(ConfigError, match="no such file"):
        method.phases()


def test_weights_that_lack_a_tensor_are_refused_by_its_name(tmp_path):
    path = tmp_path / "w.safetensors"
    state = public(resnet18(stages=2), path)
    config = ResNet50CAM.Config(backbone=BackboneConfig(name="resnet18", weights=str(path)), stages=2)
    del state["layer2.0.conv1.weight"]
    save_file(state, path)
    with pytest.raises(ConfigError, match=r"layer2\.0\.conv1\.weight"):
        ResNet50CAM(config, Spec(height=32, width=32)).phases()


# Learning


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet50-cam", {"stages": 2, "width": 8, "lr": 1e-3}),
        ("densenet169", {"stages": 1, "growth": 8, "lr": 3e-3}),
        ("dcls", {"width": 8, "lr": 1e-3, "dropout": 0.0}),
    ],
)
def test_training_tells_a_toy_apart_and_finds_the_place(name, settings):
    """A bright square somewhere on noise, three times rarer than noise alone."""
    method = build(METHODS[name], augment=replace(OFF, brightness=0.1), **settings).train()
    side, g = method.spec.height, torch.Generator().manual_seed(2)
    quarter = side // 4

    def toy(labels):
        x = torch.rand(len(labels), 1, side, side, generator=g) * 0.6 - 1
        where = torch.zeros_like(x, dtype=torch.bool)
        for i, c in enumerate(labels):
            if c:
                r, q = (int(torch.randint(0, side - quarter, (), generator=g)) for _ in range(2))
                where[i, :, r : r + quarter, q : q + quarter] = True
        return torch.where(where, x + 1.2, x), torch.tensor(labels), where

    phase = method.phases()[0]
    optimisers = Optimisers(phase.optimisers)
    batches = (Batch(*toy([1, 0, 0, 0] * 4)[:2]) for _ in repeat(None))
    for k in range(40):
        losses = phase.step(batches, k, optimisers)
    assert set(losses) == {"net", "monitor"}
    x, label, where = toy([0, 1] * 20)
    with torch.no_grad():
        found = method.eval().predict(x)
    assert ((found.score > 0.5) == label.bool()).float().mean() >= 0.9
    if name == "dcls":
        return  # at 64 px its map has four places, each of which sees the whole image
    shown, inside = found.anomaly_map[label.bool()], where[label.bool()]
    assert shown[inside].mean() > 2 * shown[~inside].mean()


def test_one_class_alone_is_refused_before_any_work(tmp_path):
    toy = toys.toy("resnet50-cam", tmp_path / "data", data={"select": "label=healthy"})
    with pytest.raises(UsageError, match=r"images of one domain only.*healthy.*at least two"):
        train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
