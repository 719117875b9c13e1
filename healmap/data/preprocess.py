"""From raw pixels to what a network sees, and back.

Two halves. *Geometry*: a plane is padded, cropped or stretched to a square and resized to the working grid; ``restore`` takes a
map on the working grid back to the plane's own size. *Intensity*: every normalisation is one affine map followed by a clip,

    v = clip((x - centre) / half, -1, 1),

where ``centre`` and ``half`` come from the settings, from the case (a plane, or a whole volume) or from the training data:

    window              low, high fixed;                     centre = (low + high) / 2, half = (high - low) / 2
    percentile          low, high = percentiles of the case; likewise
    foreground-median   low = air, high = low + scale * (median of the foreground - low); likewise
    zscore              centre = mean, half = range * std of the training foreground
    none                integers: low, high = range of the type; likewise. Others: centre = 0, half = 1

What is fitted on training data (zscore; the window of data that bring none) is stored in the run and used unchanged later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from ..config import from_plain, to_plain
from ..errors import ConfigError, UnreadableError
from ..experiment import DataConfig

# Of the way from air to the 99.5th percentile. Ours: above the noise of dark scans, below white matter.
FOREGROUND_SHARE = 0.1
_TYPE_RANGE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
# The settings that decide what the network sees; a run is tied to these, not to its batch size.
SETTINGS = ("size", "channels", "fit", "normalisation", "window", "percentiles", "median_scale", "zscore_range", "axis")
Stats = dict[str, Any]


@dataclass(frozen=True)
class Square:
    """How an (height, width) plane and its square correspond: the square of side ``side`` starts at (top, left) of the plane
    (negative: outside it)."""

    height: int
    width: int
    side: int
    top: int
    left: int


@dataclass(frozen=True)
class Preprocessing:
    """The recorded steps between a file and the network. Immutable; equal settings and ``fitted`` give equal results.

    fitted: {} or {"window": [low, high]} or {"mean": m, "std": s}, in raw units.
    """

    config: DataConfig
    fitted: Mapping[str, Any] = field(default_factory=dict)

    # ---- fitting -----------------------------------------------------------------------------------------------------

    @classmethod
    def fit(cls, config: DataConfig, cases: Iterable[Mapping[str, Any]] = ()) -> Preprocessing:
        """Parameters from the ``case_stats`` of the training cases; normalisations that need none ignore them."""
        total = mean = square = 0.0
        low, high, unwindowed = math.inf, -math.inf, False
        for s in cases:
            n = s["n_foreground"]
            total, mean, square = total + n, mean + n * s["mean"], square + n * (s["std"] ** 2 + s["mean"] ** 2)
            if s["window"] is None and s["dtype"] not in _TYPE_RANGE:
                low, high, unwindowed = min(low, s["min"]), max(high, s["max"]), True
        if config.normalisation == "zscore" and total:
            mean /= total
            return cls(config, {"mean": mean, "std": math.sqrt(max(square / total - mean**2, 0.0)) or 1.0})
        if config.normalisation == "window" and config.window is None and unwindowed:
            return cls(config, {"window": [low, high if high > low else low + 1.0]})
        return cls(config)

    # ---- intensity -----------------------------------------------------------------------------------------------------

    def to_channels(self, array: NDArray[Any], *, colour: bool | None = None) -> NDArray[Any]:
        """Grey stays; colour, (…, 3), becomes grey by luma (ITU-R 601) when one channel is wanted. Any number of axes.

        colour: whether the last axis is red, green, blue; None: yes for three axes, as in a plane. uint8 and uint16 stay, all
        other kinds become float32.
        """
        if (array.ndim == 3 if colour is None else colour) and self.config.channels == 1:
            grey = array.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
            return np.rint(grey).astype(array.dtype) if array.dtype.kind in "ub" else grey
        return _storable(array)

    def case_stats(
        self,
        array: NDArray[Any],
        *,
        window: tuple[float, float] | None = None,
        padding: NDArray[np.bool_] | None = None,
        colour: bool | None = None,
    ) -> Stats:
        """Statistics of one case, from its raw values: a plane (H, W[, 3]), or a whole volume.

        colour: as in :meth:`to_channels`. window: the display window that the file brings. padding: True where the file says
        that nothing was imaged; left out.
        Values that are not finite, where they are allowed, are left out and counted. ``low``: 0 if no value is negative, else
        the smallest (air).
        Foreground: above ``threshold`` = low + 10 % of the way to the 99.5th percentile.

        Raises:
            UnreadableError: no finite value at all; or, under ``data.nonfinite=refuse``, any that is not.
        """
        array = self.to_channels(array, colour=colour)
        if padding is not None and padding.any() and not padding.all():
            values = array[~padding]
        else:
            values = array.reshape(-1)
        count, bad = values.size, 0
        if values.dtype.kind == "f":
            finite = _usable(values)
            bad = int(count - np.count_nonzero(finite))
            values = values[finite] if bad else values
        if not values.size:
            raise UnreadableError("the image holds no finite value", hint="leave it out or repair it")
        if bad and self.config.nonfinite == "refuse":
            hint = "repair it or leave it out; where they are background, train with data.nonfinite=lowest"
            raise UnreadableError(f"{bad} of {count} values are NaN, infinite or beyond 1e30", hint=hint)
        least, most = float(values.min()), float(values.max())
        low = 0.0 if least >= 0 else least
        p = _percentiles(values, [*self.config.percentiles, 99.5])
        threshold = low + FOREGROUND_SHARE * (p[2] - low)
        inside = values[values > threshold]
        if not inside.size:  # constant, or all but a few pixels at one value
            inside = values
        # In double precision: a float32 sum over a volume loses digits.
        return {
            "dtype": str(array.dtype),
            "n": count,
            "nonfinite": bad,
            "min": least,
            "max": most,
            "low": low,
            "p_low": p[0],
            "p_high": p[1],
            "threshold": threshold,
            "n_foreground": int(inside.size),
            "median": float(np.median(inside)),
            "mean": float(inside.mean(dtype=np.float64)),
            "std": float(inside.std(dtype=np.float64)),
            "window": list(window) if window else None,
        }

    def limits(self, stats: Mapping[str, Any]) -> tuple[float, float]:
        """(centre, half) of the affine map for a case, in raw units; half > 0."""
        cfg, kind = self.config, stats["dtype"]
        low, high = -1.0, 1.0
        match cfg.normalisation:
            case "window":
                own = cfg.window or stats["window"] or _TYPE_RANGE.get(kind)
                low, high = own or self.fitted.get("window") or _unfitted("window")
            case "percentile":
                low, high = stats["p_low"], stats["p_high"]
            case "foreground-median":
                low, high = stats["low"], stats["low"] + cfg.median_scale * (stats["median"] - stats["low"])
            case "zscore":
                mean, std = (self.fitted[k] for k in ("mean", "std")) if "mean" in self.fitted else _unfitted("zscore")
                low, high = mean - cfg.zscore_range * std, mean + cfg.zscore_range * std
            case "none":
                low, high = _TYPE_RANGE.get(kind, (-1.0, 1.0))
        if not high - low > 1e-30:  # a constant case: all at the bottom of the range, nothing infinite
            high = low + max(stats["max"] - low, 1.0)
        return (low + high) / 2, (high - low) / 2

    def normalise(self, array: NDArray[Any], stats: Mapping[str, Any]) -> NDArray[np.float32]:
        """Working-grid array (S, S[, 3]) of one case -> (C, S, S) in [-1, 1], finite."""
        out = as_channels_first(np.asarray(array)[None], self.config.channels)
        return apply_limits(out, np.array([self.limits(stats)]))[0]

    def unnormalise(self, array: NDArray[Any], stats: Mapping[str, Any]) -> NDArray[np.float32]:
        """[-1, 1] back to raw units (what the clip cut off does not come back). Any shape."""
        centre, half = self.limits(stats)
        return np.asarray(array, np.float32) * np.float32(half) + np.float32(centre)

    # ---- geometry --------------------------------------------------------------------------------------------------------

    def square(self, height: int, width: int) -> Square | None:
        """The square that a plane is padded or cropped to; None: it is stretched."""
        if self.config.fit == "stretch":
            return None
        side = max(height, width) if self.config.fit == "pad" else min(height, width)
        # Floor division for positive and negative differences alike keeps pad and crop centred the same way.
        return Square(height, width, side, (height - side) // 2, (width - side) // 2)

    def prepare(
        self, plane: NDArray[Any], stats: Mapping[str, Any] | None = None, padding: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """Raw plane (H, W[, 3]) -> (S, S[, 3]) in its own kind: uint8, uint16, else float32.

        What lies outside the plane, padding, and values that are not finite become ``stats["low"]`` (the plane's own without
        ``stats``). Downsizing is antialiased (triangle filter); values are never overshot.
        """
        plane = self.to_channels(plane)
        low = float(stats["low"]) if stats else _low(plane)
        if plane.dtype.kind == "f" and not (usable := _usable(plane)).all():
            plane = np.where(usable, plane, np.float32(low))
        if padding is not None and padding.any():
            where = padding if padding.ndim == plane.ndim else padding[..., None]
            plane = np.where(where, np.asarray(low, plane.dtype), plane)
        return self._to_grid(plane, low)

    def prepare_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(H, W) -> (S, S): True where the lesion covers at least half of the working pixel. A lesion smaller than that keeps
        the pixels that it covers most."""
        cover = self._to_grid(mask.astype(np.float32), 0.0)
        peak = float(cover.max())
        return cover >= (0.5 if peak >= 0.5 or peak == 0 else 0.9 * peak)

    def _to_grid(self, plane: NDArray[Any], fill: float) -> NDArray[Any]:
        square = self.square(*plane.shape[:2])
        if square:
            plane = cut(plane, square, fill)
        return resize(plane, (self.config.size, self.config.size))

    def restore(
        self, array: NDArray[Any], native_shape: tuple[int, ...], outside: float | NDArray[Any] = 0.0
    ) -> NDArray[np.float32]:
        """A map (H', W') or picture (C, H', W') on the working grid -> float32 (H, W) or (H, W, C) at the plane's own size.

        outside: what stands where a crop cut the plane off: a number, or the native plane itself.
        The inverse of :meth:`prepare` in geometry: pixel centres correspond, sizes always match.
        """
        array = np.asarray(array, np.float32)
        if array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
            array = array[..., 0] if array.shape[-1] == 1 else array
        height, width = native_shape[:2]
        square = self.square(height, width)
        if square is None:
            return resize(array, (height, width))
        big = resize(array, (square.side, square.side))
        out = np.empty((height, width, *array.shape[2:]), np.float32)
        out[...] = outside
        y0, y1 = max(square.top, 0), min(square.top + square.side, height)
        x0, x1 = max(square.left, 0), min(square.left + square.side, width)
        out[y0:y1, x0:x1] = big[y0 - square.top : y1 - square.top, x0 - square.left : x1 - square.left]
        return out

    # ---- plain data --------------------------------------------------------------------------------------------------------

    def to_plain(self) -> dict[str, Any]:
        plain = to_plain(self.config)
        return {"settings": {k: plain[k] for k in SETTINGS}, "fitted": to_plain(self.fitted)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Preprocessing:
        fitted = plain.get("fitted", {})
        if not isinstance(fitted, Mapping) or not set(fitted) <= {"window", "mean", "std"}:
            raise ConfigError("the stored preprocessing is not understood", hint="was it written by a newer version?")
        return cls(from_plain(DataConfig, plain["settings"], where="preprocessing"), dict(fitted))


def cut(plane: NDArray[Any], square: Square, fill: float) -> NDArray[Any]:
    """The square's part of the plane (H, W[, C]), ``fill`` where it sticks out."""
    out = np.empty((square.side, square.side, *plane.shape[2:]), plane.dtype)
    y0, y1 = max(square.top, 0), min(square.top + square.side, square.height)
    x0, x1 = max(square.left, 0), min(square.left + square.side, square.width)
    if (y1 - y0, x1 - x0) != (square.side, square.side):
        out[...] = np.asarray(fill, plane.dtype)
    out[y0 - square.top : y1 - square.top, x0 - square.left : x1 - square.left] = plane[y0:y1, x0:x1]
    return out


def resize(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """(H, W[, C]) -> (*shape[, C]), same kind (uint8, uint16, float32). Triangle filter, widened when shrinking; pixel centres
    at half."""
    if plane.shape[:2] == shape:
        return np.ascontiguousarray(plane)
    size = (shape[1], shape[0])
    if plane.dtype == np.uint8:  # Pillow's 8-bit path is the fast one, and rounds correctly
        return np.array(Pil.fromarray(np.ascontiguousarray(plane)).resize(size, Pil.Resampling.BILINEAR))
    if plane.ndim == 3:
        return np.stack([resize(plane[..., c], shape) for c in range(plane.shape[2])], axis=-1)
    out = np.array(Pil.fromarray(np.ascontiguousarray(plane, np.float32)).resize(size, Pil.Resampling.BILINEAR))
    return np.rint(out).clip(0, 65535).astype(np.uint16) if plane.dtype == np.uint16 else out


def as_channels_first(planes: NDArray[Any], channels: int) -> NDArray[np.float32]:
    """(N, S, S[, 3]) of any kind -> float32 (N, C, S, S); grey is repeated when three channels are wanted."""
    if planes.ndim == 4:
        return np.ascontiguousarray(np.moveaxis(planes, -1, 1), np.float32)
    grey = planes[:, None].astype(np.float32)
    return grey if channels == 1 else np.repeat(grey, channels, axis=1)


def apply_limits(images: NDArray[np.float32], limits: NDArray[np.float64]) -> NDArray[np.float32]:
    """v = clip((x - centre) / half, -1, 1), in place. images: (N, …); limits: (N, 2) of centre, half."""
    each = (slice(None), *(None,) * (images.ndim - 1))
    images -= limits[:, 0].astype(np.float32)[each]
    images *= (1 / limits[:, 1]).astype(np.float32)[each]
    return np.clip(images, -1, 1, out=images)


def _storable(plane: NDArray[Any]) -> NDArray[Any]:
    if plane.dtype == np.bool_:
        return plane.astype(np.uint8)
    if plane.dtype.name in _TYPE_RANGE:  # a big-endian array passes here and is turned into the machine's order
        return plane.astype(plane.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is then left out
        return plane.astype(np.float32, copy=False)


def _usable(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Finite, and at most 1e30 in size: beyond that differences leave the range of numbers, and nothing was measured."""
    return np.abs(values) <= 1e30


def _low(plane: NDArray[Any]) -> float:
    finite = plane[_usable(plane)]
    return 0.0 if not finite.size or finite.min() >= 0 else float(finite.min())


def _percentiles(values: NDArray[Any], wanted: list[float]) -> list[float]:
    """Linear percentiles; of small integers through a histogram, which is many times faster and exact."""
    if values.dtype not in (np.uint8, np.uint16):
        return [float(v) for v in np.percentile(values, wanted)]
    cumulative = np.cumsum(np.bincount(values))
    out = []
    for q in wanted:
        rank = (values.size - 1) * q / 100
        below, above = math.floor(rank), math.ceil(rank)
        a, b = (int(np.searchsorted(cumulative, r, side="right")) for r in (below, above))
        out.append(a + (b - a) * (rank - below))
    return out


def _unfitted(name: str) -> Any:
    raise ConfigError(f"normalisation '{name}' was not fitted", hint="fit it on training data with Preprocessing.fit")
