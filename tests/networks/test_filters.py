"""The filter bank: its formula, what it answers to, and what leaves it alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from healmap.networks.filters import GAINS, ORIENTATIONS, WAVELENGTHS, FilterBank, gabor_pairs

ENERGIES = len(WAVELENGTHS) * ORIENTATIONS
MEAN, DEVIATION = ENERGIES, ENERGIES + 1


def grating(wavelength: float, theta: float, phase: float = 0.0, amplitude: float = 0.3, size: int = 96) -> Tensor:
    p = torch.arange(size, dtype=torch.float64)
    angle = 2 * math.pi / wavelength * (p[None, :] * math.cos(theta) + p[:, None] * math.sin(theta)) + phase
    return (amplitude * angle.cos())[None, None].float()


def middle(features: Tensor) -> Tensor:
    """(C,) in the middle of a stage's map."""
    return features[0, :, features.shape[2] // 2, features.shape[3] // 2]


def test_filters_are_the_formula_and_sum_to_zero():
    even, odd = gabor_pairs()
    assert even.shape == odd.shape == (ENERGIES, 1, 18, 18)
    assert float(even.sum((1, 2, 3)).abs().max()) < 1e-5
    assert float(odd.sum((1, 2, 3)).abs().max()) < 1e-5
    sigma, i = 0.5 * WAVELENGTHS[1], 3
    kernel = torch.complex(even, odd)[ORIENTATIONS + i, 0].to(torch.complex128)
    theta = math.pi * i / ORIENTATIONS
    ratio = []
    for row, column in [(8, 9), (4, 12), (10, 2)]:
        y, x = row - 8.5, column - 8.5
        window = math.exp(-(x * x + y * y) / (2 * sigma * sigma))
        turn = 2 * math.pi * (x * math.cos(theta) + y * math.sin(theta)) / WAVELENGTHS[1]
        ratio.append(complex(kernel[row, column]) / (window * (complex(math.cos(turn), math.sin(turn)) - 0.0071919)))
    assert all(abs(r / ratio[0] - 1) < 5e-3 for r in ratio)  # one gain for all; c = exp(-π²/2) of an unbounded filter


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("wavelength", [0, 1])
@pytest.mark.parametrize("orientation", [0, 3, 6])
def test_a_grating_gives_its_amplitude_in_its_own_channel(stage, wavelength, orientation):
    theta = math.pi * orientation / ORIENTATIONS
    shown = grating(WAVELENGTHS[wavelength] * 2**stage, theta)
    energies = middle(FilterBank().stages(shown)[stage])[:ENERGIES]
    assert int(energies.argmax()) == wavelength * ORIENTATIONS + orientation
    if stage == 0:  # levels above are averages of squares, which weaken a grating
        assert float(energies.max()) == pytest.approx(GAINS[0] * 0.3, rel=0.02)
    shifted = middle(FilterBank().stages(grating(WAVELENGTHS[wavelength] * 2**stage, theta, phase=1.0))[stage])
    assert float(shifted[:ENERGIES].max()) == pytest.approx(float(energies.max()), rel=0.03), (
        "a grating's phase does not matter"
    )


def test_brightness_moves_the_mean_alone_and_contrast_scales_the_rest():
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    bank = FilterBank()
    for plain, brighter, stronger in zip(*(bank.stages(x) for x in (image, image + 0.25, 2 * image)), strict=True):
        torch.testing.assert_close(brighter[:, MEAN], plain[:, MEAN] + GAINS[1] * 0.25)
        rest = [k for k in range(ENERGIES + 2) if k != MEAN]
        torch.testing.assert_close(brighter[:, rest], plain[:, rest], rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(stronger, 2 * plain, rtol=1e-3, atol=1e-4)
    for flat in bank.stages(torch.full((1, 1, 64, 64), 0.5)):
        assert float(flat[:, rest].abs().max()) < 1e-2


def test_turned_and_mirrored_images_have_turned_and_mirrored_features():
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    bank = FilterBank()
    for plain, turned, mirrored in zip(*(bank.stages(x) for x in (image, image.rot90(1, (2, 3)), image.flip(3))), strict=True):
        quarter = [w * ORIENTATIONS + (i + ORIENTATIONS // 2) % ORIENTATIONS for w in (0, 1) for i in range(ORIENTATIONS)]
        across = [w * ORIENTATIONS + -i % ORIENTATIONS for w in (0, 1) for i in range(ORIENTATIONS)]
        torch.testing.assert_close(turned, plain[:, [*quarter, MEAN, DEVIATION]].rot90(1, (2, 3)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(mirrored, plain[:, [*across, MEAN, DEVIATION]].flip(3), rtol=1e-3, atol=1e-4)


def test_mean_and_deviation_are_those_of_the_cells():
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    second = FilterBank().stages(image)[1][0]
    level = image[0, 0].unflatten(0, (32, 2)).unflatten(2, (32, 2)).mean((1, 3))
    cell = level[8:12, 20:24]
    assert float(second[MEAN, 2, 5]) == pytest.approx(GAINS[1] * float(cell.mean()), abs=1e-5)
    assert float(second[DEVIATION, 2, 5]) == pytest.approx(GAINS[2] * float(cell.std(correction=0)), abs=1e-4)


def test_channels_stand_beside_each_other_and_nothing_is_stored():
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    bank = FilterBank(3)
    maps = bank.stages(images)
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 32 // s, 48 // s) for c, s in zip(bank.channels, bank.strides, strict=True)
    ]
    torch.testing.assert_close(maps[1][1:, 18:36], FilterBank(1).stages(images[1:, 1:2])[1])
    assert not bank.state_dict()
    assert len(bank.stages(images, 2)) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(bank.stages(images), maps, strict=True))
