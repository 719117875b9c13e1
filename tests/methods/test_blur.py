"""The blur of maps: SciPy's, and as exact under half precision as without it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from healmap.methods import get
from healmap.methods.blur import gaussian_blur


def test_blur_is_that_of_scipy() -> None:
    for shape, sigma in (((40, 24), 4.0), ((9, 5), 4.0), ((32, 32), 1.3)):
        maps = torch.rand(2, 1, *shape, dtype=torch.float64)
        wanted = np.stack([scipy.ndimage.gaussian_filter(m[0], sigma) for m in maps.numpy()])
        np.testing.assert_allclose(gaussian_blur(maps, sigma)[:, 0], wanted, rtol=1e-9)
    assert gaussian_blur(maps, 0.0) is maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_precision_around_does_not_matter(dtype: torch.dtype) -> None:
    maps = (torch.rand(3, 1, 20, 16) / 100 + 0.5).to(dtype)
    wanted = gaussian_blur(maps, 2.0)
    assert wanted.dtype == torch.promote_types(dtype, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gaussian_blur(maps, 2.0), wanted)


def test_scores_of_blurred_maps_stay_apart_in_half_precision() -> None:
    """Validation runs under autocast, and ranks weights by these scores."""
    cls = get("patch-scan-gan")
    config, spec = cls.tiny()
    torch.manual_seed(0)
    method, image = cls(config, spec).eval(), torch.rand(64, 1, spec.height, spec.width) * 2 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert len(method.predict(image).score.unique()) > 32
