"""DenseNet-169 against the public files' names, the published size and a transcription that reads tensors by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from healmap.networks.densenet import densenet169, new_spelling

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
DEPTHS = (6, 12, 32, 32)


def published() -> list[str]:
    names = ["features.conv0.weight", *(f"features.norm0.{n}" for n in NORM)]
    for block, depth in enumerate(DEPTHS, 1):
        for layer in range(1, depth + 1):
            for k in (1, 2):
                at = f"features.denseblock{block}.denselayer{layer}"
                names += [*(f"{at}.norm{k}.{n}" for n in NORM), f"{at}.conv{k}.weight"]
        if block < 4:
            at = f"features.transition{block}"
            names += [*(f"{at}.norm.{n}" for n in NORM), f"{at}.conv.weight"]
    return [*names, *(f"features.norm5.{n}" for n in NORM), "classifier.weight", "classifier.bias"]


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_names_and_size_are_the_public_files():
    with torch.device("meta"):
        whole = densenet169()
        assert list(whole.state_dict()) == published()
        assert count(whole) == 14_149_480
        assert count(densenet169(channels=1, classes=2)) == 12_481_538


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("features.denseblock1.denselayer12.norm.1.weight", "features.denseblock1.denselayer12.norm1.weight"),
        ("features.denseblock4.denselayer3.conv.2.weight", "features.denseblock4.denselayer3.conv2.weight"),
        ("features.transition1.norm.weight", "features.transition1.norm.weight"),
        ("layer1.0.downsample.1.weight", "layer1.0.downsample.1.weight"),
        ("features.21.weight", "features.21.weight"),
    ],
)
def test_the_older_spelling_is_read_as_the_newer(old, new):
    assert new_spelling(old) == new


def transcription(t: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The blocks' maps after norm and ReLU, from nothing but the tensors and their names."""

    def norm_relu(name: str, x: Tensor) -> Tensor:
        weight, bias, mean, var = (t[f"features.{name}.{n}"].view(-1, 1, 1) for n in NORM[:4])
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).relu()

    def conv(name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, t[f"features.{name}.weight"], **options)

    x = F.max_pool2d(norm_relu("norm0", conv("conv0", x, stride=2, padding=3)), 3, 2, 1)
    maps = []
    for block, depth in enumerate(DEPTHS, 1):
        for layer in range(1, depth + 1):
            at = f"denseblock{block}.denselayer{layer}"
            y = conv(f"{at}.conv1", norm_relu(f"{at}.norm1", x))
            x = torch.cat([x, conv(f"{at}.conv2", norm_relu(f"{at}.norm2", y), padding=1)], 1)
        maps.append(norm_relu(f"transition{block}.norm" if block < 4 else "norm5", x))
        if block < 4:
            x = F.avg_pool2d(conv(f"transition{block}.conv", maps[-1]), 2)
    return maps


@torch.no_grad()
def test_forward_is_the_published_network():
    torch.manual_seed(0)
    network = densenet169(growth=4)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3)
        elif name.endswith("running_var") or tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    network = network.double().eval()
    x = torch.rand(1, 3, 64, 32, dtype=torch.float64)
    maps = transcription(network.state_dict(), x)
    for k, (found, expected) in enumerate(zip(network.stages(x), maps, strict=True)):
        torch.testing.assert_close(found, expected)
        assert found.shape == (1, network.channels[k], 64 // network.strides[k], 32 // network.strides[k])
    cut = densenet169(classes=0, growth=4, stages=3).double().eval()
    missing, unknown = cut.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    assert all(name.startswith(cut.spare) for name in unknown)
    torch.testing.assert_close(cut.stages(x), tuple(maps[:3]))
