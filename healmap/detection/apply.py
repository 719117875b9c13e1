"""A method applied to planes: arrays in, arrays out; every image's answer its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..methods.base import Method
from ..methods.single_precision import single_precision
from .result import PlaneResult

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.preprocess import Preprocessing


@dataclass(frozen=True, eq=False)
class Applied:
    """A method's answer for one image on the working grid: anomaly_map (S, S) >= 0, healed (C, S, S) in [-1, 1]."""

    score: float
    anomaly_map: NDArray[np.float32] | None = None
    healed: NDArray[np.float32] | None = None
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA, else MPS, else the processor. Raises ConfigError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device '{name}' is not available", where="--device", hint="use auto or cpu") from None
    return device


@torch.no_grad()
@single_precision()
def apply(method: Method, images: NDArray[np.float32], device: torch.device) -> list[Applied]:
    """images: (N, C, S, S) in [-1, 1]. Single precision throughout: reduced precision would move scores across thresholds."""
    prediction = method.predict(torch.as_tensor(images).to(device))

    def array(tensor: torch.Tensor | None) -> NDArray[np.float32] | None:
        return None if tensor is None else tensor.detach().float().cpu().numpy()

    scores, maps, healed = array(prediction.score), array(prediction.anomaly_map), array(prediction.healed)
    assert scores is not None
    named = {name: array(tensor) for name, tensor in prediction.maps.items()}
    return [
        Applied(
            float(scores[i]),
            maps[i, 0].clip(min=0) if maps is not None else None,
            healed[i] if healed is not None else None,
            {name: values[i] for name, values in named.items() if values is not None},
        )
        for i in range(len(images))
    ]


def apply_dataset(
    method: Method, dataset: Dataset, device: torch.device, *, batch_size: int = 16, indices: Sequence[int] | None = None
) -> Iterator[tuple[int, NDArray[np.float32], Applied]]:
    """(index, image (C, S, S), answer) one by one, in the given order."""
    chosen = list(range(len(dataset))) if indices is None else list(indices)
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        images = dataset.images(part)
        for index, image, answer in zip(part, images, apply(method, images, device), strict=True):
            if not sound(answer):
                raise DataError(
                    "the method's answer is not a number",
                    where=dataset.items[index].key,
                    hint="its weights do not suit this image; train longer or with a lower learning rate",
                )
            yield index, image, answer


def sound(answer: Applied) -> bool:
    """Whether score, map and healed image are finite."""
    arrays = (answer.score, answer.anomaly_map, answer.healed)
    return all(np.isfinite(a).all() for a in arrays if a is not None)


def to_native(
    answer: Applied, image: NDArray[np.float32], plane: NDArray[Any], stats: Mapping[str, Any], preprocessing: Preprocessing
) -> PlaneResult:
    """The answer at the plane's own size and in its own units.

    image: (C, S, S), what the method saw. plane: (H, W[, 3]) as stored.

    The healed plane is the stored plane plus the method's change, resized: where the method changes nothing the plane stays
    as it is, at its full resolution, and what the network never saw (cut off by a crop or a window) is left alone.
    """
    shape = plane.shape[:2]
    healed = None
    if answer.healed is not None:
        base = preprocessing.to_channels(plane).astype(np.float32)
        base = np.where(np.isfinite(base), base, np.float32(stats["low"]))
        _, half = preprocessing.limits(stats)
        change = preprocessing.restore((answer.healed - image) * np.float32(half), shape)
        if change.ndim > base.ndim:
            change = change.mean(axis=-1)
        healed = base + (change[..., None] if base.ndim > change.ndim else change)
    return PlaneResult(
        score=answer.score,
        anomaly_map=None if answer.anomaly_map is None else native_map(answer.anomaly_map, shape, preprocessing),
        healed=healed,
        maps={name: _native_named(name, values, shape, preprocessing) for name, values in answer.maps.items()},
    )


def native_map(anomaly_map: NDArray[np.float32], shape: tuple[int, ...], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(S, S) -> (H, W), still >= 0."""
    return preprocessing.restore(anomaly_map, shape).clip(min=0)


def _native_named(
    name: str, values: NDArray[np.float32], shape: tuple[int, ...], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    if values.ndim != 3:
        return values
    if name == "displacement":  # (2, S, S), x then y, in pixels of the working grid
        square = preprocessing.square(shape[0], shape[1])
        across, down = (square.side, square.side) if square else (shape[1], shape[0])
        factor = np.array([across / values.shape[2], down / values.shape[1]], np.float32)
        values = values * factor[:, None, None]
    return preprocessing.restore(values, shape)
