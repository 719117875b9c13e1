"""Thresholds from validation data, once per set of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..experiment import DetectionConfig
from ..metrics import curves, image_level
from ..metrics.bins import Bins, PixelTally
from ..metrics.froc import threshold_grid
from ..types import DISEASED, HEALTHY
from .apply import apply_dataset, native_map
from .predictor import Predictor
from .thresholds import Threshold, Thresholds, save_thresholds

if TYPE_CHECKING:
    from ..data.dataset import Dataset

NO_MAP, NO_SCALE = "no threshold: the method gives no map", "default: the method gives no map"
BRIGHTEST = 0.999  # the colour scale ends at this quantile of the validation maps: the top 0.1 % of pixels saturate


def calibrate(run: Path | str, val: Dataset, *, weights: str = "best", device: str = "auto") -> Thresholds:
    """Finds the thresholds of a run on validation images and writes them to ``weights/thresholds.json``.

    Image: best F1 when healthy and diseased images exist, else a quantile of the healthy scores. Pixel: best pooled Dice when
    annotated diseased images exist, else a quantile of the pixels of healthy images. Maps count at native size.

    Raises:
        CheckpointError: the run's weights cannot be read. DataError: an answer is not a number.
    """
    predictor = Predictor.load(Path(run), weights=weights, device=device)
    return save_calibration(predictor, val, Path(run), weights)


def save_calibration(predictor: Predictor, val: Dataset, run: Path, weights: str) -> Thresholds:
    thresholds = find_thresholds(predictor, val, weights)
    save_thresholds(thresholds, run)
    return thresholds


def find_thresholds(predictor: Predictor, val: Dataset, weights: str = "best") -> Thresholds:
    """The thresholds without writing them. A method that takes diseased images only is shown no other, and calls none."""
    choosy = type(predictor.method).class_at_inference
    if choosy:
        val = val.subset([i for i, item in enumerate(val.items) if item.label == DISEASED])
    config, scores = predictor.detection, np.zeros(len(val))
    labels = [item.label for item in val.items]
    annotated, every = PixelTally(), PixelTally()
    masks = 0
    answers = apply_dataset(predictor.method, val, predictor.device, batch_size=predictor.batch_size)
    for index, _, answer in answers:
        scores[index] = answer.score
        if answer.anomaly_map is None:
            continue
        native = val.native(index)
        anomaly_map = native_map(answer.anomaly_map, native.plane.shape[:2], predictor.preprocessing)
        every.add(labels[index], anomaly_map, np.zeros(anomaly_map.shape, bool))
        if native.mask is not None and labels[index] in (HEALTHY, DISEASED):
            masks += labels[index] == DISEASED
            annotated.add("", anomaly_map, native.mask)
    all_bins = every.bins()
    mapped = type(predictor.method).localises
    pixel = _pixel_threshold(annotated.bins(), all_bins, masks, config) if mapped else Threshold(how=NO_MAP)
    _, counts = all_bins.pooled()
    return Thresholds(
        image=Threshold(how="no threshold: the method must know the class")
        if choosy
        else _image_threshold(labels, scores, config),
        pixel=pixel,
        scale=_scale(all_bins.values, counts, pixel.value) if mapped else replace(Thresholds().scale, how=NO_SCALE),
        sweep=tuple(threshold_grid(all_bins.values, counts, extra=[pixel.value] if pixel.value else []).tolist()),
        weights=weights,
        weights_sha256=predictor.weights_sha256,
        data={"name": val.table.name, "split": val.split or "", "fingerprint": val.fingerprint, "counts": val.counts()},
    )


def _image_threshold(labels: list[str], scores: NDArray[np.float64], config: DetectionConfig) -> Threshold:
    healthy = scores[[label == HEALTHY for label in labels]]
    diseased = scores[[label == DISEASED for label in labels]]
    n = {"healthy": len(healthy), "diseased": len(diseased)}
    if len(diseased) and len(healthy):
        truth = np.r_[np.zeros(len(healthy)), np.ones(len(diseased))]
        value = image_level.best_f1_threshold(truth, np.r_[healthy, diseased])
        return Threshold(value=value, how="best F1 on the validation images", n=n)
    if len(healthy):
        value = image_level.healthy_quantile_threshold(healthy, config.healthy_quantile)
        return Threshold(value=value, how=f"{config.healthy_quantile:g} quantile of the healthy validation images", n=n)
    return Threshold(how="no threshold: validation holds no image known to be healthy", n=n)


def _pixel_threshold(annotated: Bins, every: Bins, masks: int, config: DetectionConfig) -> Threshold:
    positive, negative = annotated.pooled()
    n = {"annotated": masks}
    if positive.sum():
        value = curves.best_dice_threshold(annotated.values, positive, negative)
        if value > 0:
            return Threshold(value=value, how="best pooled Dice on the annotated validation images", n=n)
    if HEALTHY in every.groups:
        counts = np.asarray(every.negative.toarray()[every.groups.index(HEALTHY)])
        value = quantile(every.values, counts, config.pixel_quantile)
        # The bin's lower edge belongs to the bin: the threshold is the next one above.
        above = every.values[np.searchsorted(every.values, value, side="right") :]
        value = float(above[0]) if len(above) else float(np.nextafter(np.float32(value * 1.001), np.float32(np.inf)))
        how = f"{config.pixel_quantile:g} quantile of the pixels of healthy validation images"
        return Threshold(value=value or None, how=how, n=n)
    return Threshold(how="no threshold: validation holds neither masks nor healthy maps", n=n)


def _scale(values: NDArray[np.float64], counts: NDArray[np.float64], pixel: float | None) -> Threshold:
    if not counts.sum():
        return Thresholds().scale
    top = max(quantile(values, counts, BRIGHTEST), 2 * (pixel or 0.0))
    return Threshold(
        value=top or 0.25, how=f"{BRIGHTEST:g} quantile of the validation maps, at least twice the pixel threshold"
    )


def quantile(values: NDArray[np.float64], counts: NDArray[np.float64], q: float) -> float:
    """The value that a share ``q`` of the counted pixels do not exceed. values (K,) ascending, counts (K,)."""
    cumulative = np.cumsum(counts)
    return float(values[min(int(np.searchsorted(cumulative, q * cumulative[-1])), len(values) - 1)])
