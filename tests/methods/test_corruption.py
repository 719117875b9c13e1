"""Made-up lesions: drawn from torch's generator, inside the body only, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from healmap.errors import ConfigError
from healmap.methods.corruption import (
    Bumps,
    Lesions,
    add_lesions,
    blob_mask,
    bump_field,
    centres,
    coarse_noise,
    deform,
    foreground,
)


def head(n: int = 8, size: int = 64) -> torch.Tensor:
    """Bright discs with a dark hole in the middle, on black, each of another brightness: (n, 1, size, size) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    r = ((x - size / 2) ** 2 + (y - size / 2) ** 2).sqrt() / (size / 2)
    disc = ((r < 0.8) & (r > 0.2)).float()
    return disc[None, None] * torch.linspace(0.3, 0.7, n)[:, None, None, None] * 2 - 1


def only(kind: int) -> Lesions:
    return Lesions(kinds=tuple(float(k == kind) for k in range(4)))  # type: ignore[arg-type]


class TestForeground:
    def test_it_is_the_body_with_its_holes_filled(self):
        inside = foreground(head())
        assert inside.dtype == torch.bool
        assert inside.shape == (8, 1, 64, 64)
        assert inside[:, :, 32, 32].all()  # the hole
        assert not inside[:, :, :3].any()
        assert not inside[:, :, 3:10, 3:10].any()  # the corner

    def test_an_image_without_a_dark_rim_is_all_foreground(self):
        assert foreground(torch.rand(2, 1, 32, 32)).all()

    def test_a_black_image_has_none(self):
        assert not foreground(torch.full((1, 1, 32, 32), -1.0)).any()

    def test_each_image_stands_alone(self):
        x = torch.cat((head(2), torch.rand(1, 1, 64, 64)))
        assert torch.equal(foreground(x)[:1], foreground(x[:1]))

    def test_single_bright_specks_do_not_count(self):
        x = head(1)
        x[0, 0, 2, 2] = -0.5
        assert torch.equal(foreground(x), foreground(head(1)))


@pytest.mark.parametrize("kind", range(4))
class TestLesions:
    def test_nothing_changes_outside_the_body(self, kind):
        x = head()
        inside = foreground(x)
        torch.manual_seed(0)
        y = add_lesions(x, inside, only(kind))
        assert torch.equal(torch.where(inside, x, y), x)
        assert not torch.equal(x, y)

    def test_results_stay_in_range(self, kind):
        torch.manual_seed(0)
        y = add_lesions(head(), foreground(head()), dataclasses.replace(only(kind), amplitude=(0.9, 1.0)))
        assert y.isfinite().all()
        assert y.min() >= -1
        assert y.max() <= 1

    def test_same_seed_same_lesions(self, kind):
        x, results = head(), []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(add_lesions(x, foreground(x), only(kind)))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_images_that_were_not_chosen_stay_bit_identical(self, kind):
        x = head()
        chosen = torch.arange(8).view(-1, 1, 1, 1) % 2 == 0
        torch.manual_seed(0)
        y = add_lesions(x, foreground(x), only(kind), chosen)
        assert torch.equal(y[1::2], x[1::2])
        # A patch may by chance be cut from a place like the one it lands on; most of them show.
        assert (y[::2] != x[::2]).flatten(1).any(1).sum() >= 3


def test_the_share_of_changed_images_is_the_one_asked_for():
    x = head(400, 32)
    torch.manual_seed(0)
    changed = (add_lesions(x, foreground(x), only(0), 0.7) != x).flatten(1).any(1).float().mean()
    assert 0.6 < changed < 0.8


def test_most_blobs_are_bright_and_their_amplitude_is_in_range():
    x = torch.zeros(400, 1, 32, 32)
    config = dataclasses.replace(only(0), second=0.0, texture=0.0)
    torch.manual_seed(0)
    change = (add_lesions(x, foreground(x), config) - x).flatten(1)
    peak = change.gather(1, change.abs().argmax(1, keepdim=True))[:, 0] / 2  # of the [0, 1] range
    assert 0.6 < (peak > 0).float().mean() < 0.8
    assert peak.abs().max() <= 0.6 + 1e-6
    assert peak.abs().median() > 0.15


def test_blobs_are_soft_and_of_the_size_asked_for():
    inside = torch.ones(200, 1, 64, 64, dtype=torch.bool)
    torch.manual_seed(0)
    mask = blob_mask(inside, Lesions(half_axis=(0.2, 0.2), irregular=0.0))
    area = (mask > 0.5).flatten(1).sum(1).float()
    assert area.max() <= 1.1 * torch.pi * 6.4**2  # half axes of 0.2 · 32 px
    assert ((mask > 0.1) & (mask < 0.9)).any()
    torch.manual_seed(0)
    assert not torch.equal(mask, blob_mask(inside, Lesions(half_axis=(0.2, 0.2))))


def test_centres_lie_inside():
    inside = foreground(head())
    torch.manual_seed(0)
    for _ in range(20):
        x, y = centres(inside)
        assert inside[torch.arange(8), 0, y.flatten().long(), x.flatten().long()].all()


def test_coarse_noise_has_about_unit_variance():
    torch.manual_seed(0)
    assert 0.8 < coarse_noise(500, 8, (64, 64), torch.zeros(1)).std() < 1.2


class TestBumps:
    def test_the_largest_displacement_is_the_peak_at_a_distance_of_sigma(self):
        inside = torch.zeros(50, 1, 65, 65, dtype=torch.bool)
        inside[:, :, 32, 32] = True
        torch.manual_seed(0)
        size = bump_field(inside, Bumps(sigma=(0.3, 0.3), peak=(0.1, 0.1))).norm(dim=1)
        assert torch.allclose(size.flatten(1).amax(1), torch.full((50,), 0.1), atol=1e-3)
        row = size[0, 32].argmax() - 32
        assert abs(abs(int(row)) - 0.3 * 32.5) <= 1

    @pytest.mark.parametrize("inwards", [0.0, 1.0])
    def test_the_map_never_folds(self, inwards):
        inside = torch.ones(100, 1, 64, 64, dtype=torch.bool)
        torch.manual_seed(0)
        field = bump_field(inside, Bumps(sigma=(0.1, 0.12), peak=(0.14, 0.14), inwards=inwards)) * 32
        along_x = 1 + field[:, 0, :, 1:] - field[:, 0, :, :-1]
        along_y = 1 + field[:, 1, 1:] - field[:, 1, :-1]
        assert along_x.min() > 0
        assert along_y.min() > 0

    def test_inwards_shrinks_and_outwards_grows(self):
        y, x = torch.meshgrid(torch.arange(65), torch.arange(65), indexing="ij")
        disc = (((x - 32) ** 2 + (y - 32) ** 2) < 100).float()[None, None] * 2 - 1
        middle = torch.zeros(1, 1, 65, 65, dtype=torch.bool)
        middle[..., 32, 32] = True
        torch.manual_seed(0)
        area = lambda image: int((image > 0).sum())  # noqa: E731
        bump = Bumps(sigma=(0.3, 0.3), peak=(0.1, 0.1), second=0.0, inwards=1.0)
        assert area(deform(disc, middle, bump)) < area(disc)
        assert area(deform(disc, middle, dataclasses.replace(bump, inwards=0.0))) > area(disc)

    def test_images_that_were_not_chosen_stay_bit_identical(self):
        x = head()
        torch.manual_seed(0)
        chosen = torch.arange(8).view(-1, 1, 1, 1) < 4
        y = deform(x, foreground(x), Bumps(), chosen)
        assert torch.equal(y[4:], x[4:])
        assert (y[:4] != x[:4]).flatten(1).any(1).all()


@pytest.mark.parametrize("wrong", [{"half_axis": (0.3, 0.1)}, {"amplitude": (0.0, 0.1)}, {"kinds": (0, 0, 0, 0)}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        Lesions(**wrong)
