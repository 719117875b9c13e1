"""The picture grid of a run: the same validation images every time, the same colour scale every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..io.atomic import replacing

AMPLITUDE_SCALE = 0.5       # maps of healing methods are |x - healed| / 2 in [0, 1]; half of that range fills the colours


def write_grid(path: Path, rows: Mapping[str, NDArray[np.float32]], titles: Sequence[str], *, scale: float) -> None:
    """Writes a PNG: one column per image, one row per kind; maps on the scale 0 to ``scale``.

    rows: name -> (n, C, H, W) in [-1, 1], or (n, H, W) for the map. titles: n column heads.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(titles)
    figure = Figure(figsize=(1.5 * count + 1.2, 1.5 * len(rows) + 0.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), count, squeeze=False)
    shown = None
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            if name == "map":
                shown = axis.imshow(picture, cmap="inferno", vmin=0, vmax=scale)
            else:
                grey = np.clip((np.moveaxis(picture, 0, -1) + 1) / 2, 0, 1)
                axis.imshow(grey[..., 0] if grey.shape[-1] == 1 else grey, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    if shown is not None:
        figure.colorbar(shown, ax=list(axes[-1]), shrink=0.8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
