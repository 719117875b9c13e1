"""Class activation maps against closed forms, and against one another where theory says that they agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from healmap.methods import cam

N, CHANNELS, SIDE = 3, 5, 4
PLACES = SIDE * SIDE


def features(seed=0):
    f = torch.randn(N, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return f.relu()


def mean_head(classes=2):
    torch.manual_seed(1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, classes)).double()


def flat_head(classes=2):
    """A head like D_cls': linear layers on all places."""
    torch.manual_seed(1)
    layers = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(CHANNELS * PLACES // 4, 7), nn.ReLU(), nn.Linear(7, classes)]
    return nn.Sequential(*layers).double()


def test_cam_of_a_hand_made_network():
    """Two channels, two classes: channel 0 speaks for disease with weight 3, channel 1 for health with weight 2."""
    f = torch.zeros(1, 2, 2, 2)
    f[0, 0, 0, 1], f[0, 1, 1, 0] = 4.0, 1.0
    weight, bias = torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([0.5, -0.5])
    logits = f.mean((2, 3)) @ weight.T + bias
    found = cam.cam(f, weight, logits)
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 12.0], [-2.0, 0.0]]]]))
    assert found.mean() - 1 == cam.log_odds(logits)[0]  # the biases' difference is -1


def test_log_odds_belong_to_the_probability_of_any_disease():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(cam.log_odds(logits).sigmoid(), 1 - logits.softmax(1)[:, 0])
    torch.testing.assert_close(cam.log_odds(logits[:, :2]), logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("classes", [2, 4])
def test_cam_is_the_derivative_of_the_log_odds_by_the_mean(classes):
    """Σ_k w_k f_k with w from autograd alone."""
    head, f = mean_head(classes), features()
    mean = f.mean((2, 3)).requires_grad_()
    (w,) = torch.autograd.grad(cam.log_odds(head[2](mean)).sum(), mean)
    with torch.no_grad():
        found = cam.cam(f, head[2].weight, head(f))
    torch.testing.assert_close(found[:, 0], torch.einsum("nk,nkhw->nhw", w, f))


def test_mean_of_the_cam_and_the_bias_make_the_logit():
    head, f = mean_head(), features()
    with torch.no_grad():
        logits = head(f)
        for c in range(2):
            m = torch.einsum("k,nkhw->nhw", head[2].weight[c], f)
            torch.testing.assert_close(m.mean((1, 2)) + head[2].bias[c], logits[:, c])
        m = cam.cam(f, head[2].weight, logits)
        torch.testing.assert_close(m.mean((1, 2, 3)) + head[2].bias[1] - head[2].bias[0], logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("classes", [2, 4])
def test_grad_cam_is_the_cam_divided_by_the_number_of_places(classes):
    """Selvaraju et al., section 3.1: for a linear head on the global mean."""
    head, f = mean_head(classes), features()
    with torch.no_grad():
        logits, g = cam.gradients(head, f)
        m = cam.cam(f, head[2].weight, logits)
        torch.testing.assert_close(cam.grad_cam(f, g) * PLACES, m)
        torch.testing.assert_close(cam.by_place(f, g), m)
        grown = [cam.enlarge(x, (9, 7)) for x in (cam.grad_cam(f, g) * PLACES, m)]
        torch.testing.assert_close(*grown)


def test_grad_cam_differs_from_the_map_by_place_where_the_head_knows_places():
    f = features()
    with torch.no_grad():
        _, g = cam.gradients(flat_head(), f)
        assert not torch.allclose(cam.grad_cam(f, g) * PLACES, cam.by_place(f, g))


def test_map_by_place_sums_to_the_log_odds_of_a_head_without_biases():
    """Layers without bias are homogeneous: S = Σ ∂S/∂f f (Euler), place by place."""
    head, f = flat_head(), features()
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        logits, g = cam.gradients(head, f)
        torch.testing.assert_close(cam.by_place(f, g).mean((1, 2, 3)), cam.log_odds(logits))


def test_gradients_need_none_outside_and_leave_none_behind():
    head, f = flat_head(), features()
    with torch.no_grad():
        logits, g = cam.gradients(head, f)
        assert not torch.is_grad_enabled()
        torch.testing.assert_close(logits, head(f))
    assert not logits.requires_grad
    assert not g.requires_grad
    assert not f.requires_grad
    assert all(p.grad is None for p in head.parameters())
    e, step = torch.zeros_like(f), 1e-6
    e[1, 2, 3, 0] = step
    with torch.no_grad():
        slope = (cam.log_odds(head(f + e)) - cam.log_odds(head(f - e)))[1] / (2 * step)
    assert g[1, 2, 3, 0].item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-9)


def test_an_images_map_ignores_its_neighbours():
    head, f = flat_head(3), features()
    with torch.no_grad():
        _, together = cam.gradients(head, f)
        for i in range(N):
            torch.testing.assert_close(cam.gradients(head, f[i : i + 1])[1], together[i : i + 1])


def test_enlarged_map_is_raw_evidence_above_zero():
    """Not scaled by its own extremes: twice the evidence is twice the map; no evidence is no map."""
    m = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    grown = cam.enlarge(m, (9, 15))
    assert grown.shape == (2, 1, 9, 15)
    torch.testing.assert_close(cam.enlarge(2 * m, (9, 15)), 2 * grown)
    assert not cam.enlarge(-m.abs(), (9, 15)).any()
    torch.testing.assert_close(grown[:, :, 1::3, 2::5], m.relu())  # centres of the places
