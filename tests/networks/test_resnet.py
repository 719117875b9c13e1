"""Residual networks against the public files' names, the published sizes and a transcription that reads tensors by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from healmap.networks.resnet import RESNETS, Basic, ResNet, resnet18, resnet50, wide_resnet50_2

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published(depths: tuple[int, ...], convolutions: int) -> list[str]:
    """The names in a public file, in its order: convolution and norm in turn; a projection where a stage begins."""
    names = ["conv1.weight", *(f"bn1.{n}" for n in NORM)]
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            at = f"layer{stage}.{block}"
            for k in range(1, convolutions + 1):
                names += [f"{at}.conv{k}.weight", *(f"{at}.bn{k}.{n}" for n in NORM)]
            if block == 0 and (stage > 1 or convolutions == 3):
                names += [f"{at}.downsample.0.weight", *(f"{at}.downsample.1.{n}" for n in NORM)]
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("build", "depths", "convolutions", "entries"),
    [(resnet18, (2, 2, 2, 2), 2, 122), (resnet50, (3, 4, 6, 3), 3, 320), (wide_resnet50_2, (3, 4, 6, 3), 3, 320)],
)
def test_names_are_the_public_files(build, depths, convolutions, entries):
    with torch.device("meta"):
        names = list(build().state_dict())
    assert names == published(depths, convolutions)
    assert len(names) == entries


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert count(resnet18()) == 11_689_512
        assert count(resnet50()) == 25_557_032
        assert count(wide_resnet50_2()) == 68_883_240
        assert count(resnet18(classes=0, stages=3)) == 2_782_784
        assert count(wide_resnet50_2(classes=0, stages=3)) == 24_862_528
        cut = {stages: [count(resnet50(channels=c, classes=2, stages=stages)) for c in (3, 1)] for stages in (4, 3, 2)}
    assert cut == {4: [23_512_130, 23_505_858], 3: [8_545_346, 8_539_074], 2: [1_445_954, 1_439_682]}


def transcription(t: dict[str, Tensor], x: Tensor, stages: int) -> list[Tensor]:
    """The maps of the stages, from nothing but the tensors and their names."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        w = t[f"{name}.weight"]
        return F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias, mean, var = (t[f"{name}.{n}"].view(-1, 1, 1) for n in NORM[:4])
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = F.max_pool2d(norm("bn1", conv("conv1", x, 2)).relu(), 3, 2, 1)
    maps = []
    for stage in range(1, stages + 1):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in t:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            deep = f"{at}.conv3.weight" in t
            y = norm(f"{at}.bn1", conv(f"{at}.conv1", x, 1 if deep else stride)).relu()
            y = norm(f"{at}.bn2", conv(f"{at}.conv2", y, stride if deep else 1))
            if deep:
                y = norm(f"{at}.bn3", conv(f"{at}.conv3", y.relu()))
            if f"{at}.downsample.0.weight" in t:
                x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride))
            x = (x + y).relu()
            block += 1
        maps.append(x)
    return maps


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """In ``eval()``, double precision, with random norms."""
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3)
        elif name.endswith("running_var") or tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    return network.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_forward_is_the_published_network(name):
    torch.manual_seed(0)
    network = lively(ResNet(name, width=4))
    x = torch.rand(2, 3, 64, 32, dtype=torch.float64)
    expected, found = transcription(network.state_dict(), x, 4), network.stages(x)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(a, b)
        assert a.shape == (2, network.channels[k], 64 // network.strides[k], 32 // network.strides[k])


def test_stages_are_resnet18s_and_none_is_computed_in_vain():
    network = resnet18(classes=0).eval()
    assert network.channels == (64, 128, 256, 512)
    assert network.strides == (4, 8, 16, 32)
    assert isinstance(network.get_submodule("layer1")[0], Basic)
    del network.layer3  # would be missed
    assert [tuple(m.shape[1:]) for m in network.stages(torch.zeros(1, 3, 64, 64), 2)] == [(64, 16, 16), (128, 8, 8)]


def test_every_table_entry_can_be_built():
    with torch.device("meta"):
        assert all(ResNet(name, stages=1).fc is not None for name in RESNETS)
