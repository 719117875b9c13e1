"""A trained run, ready to look at images: each answer at the image's own size, in its own units, on its own grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import from_plain, to_plain
from ..data.case import is_background, plane_axis, plane_of, read_case, stats_of
from ..data.preprocess import Preprocessing
from ..errors import CheckpointError, DataError, UsageError
from ..experiment import DataConfig, DetectionConfig
from ..io.hashing import sha256_file
from ..io.image import Image, n_slices, put_plane
from ..methods import weights as weights_files
from ..methods.base import Method
from ..metrics.overlap import remove_small
from ..types import Spec
from .apply import Applied, apply, pick_device, sound, to_native
from .result import CaseResult, PlaneResult, findings_of
from .thresholds import Thresholds, load_thresholds

ADVICE = "its weights do not suit this image; train longer or with a lower learning rate"


@dataclass(eq=False)
class Predictor:
    """``Predictor.load(run).predict(image)``. Holds no state between images.

    thresholds: None values where the run was never calibrated; then scores and maps come without calls and masks.
    """

    method: Method
    preprocessing: Preprocessing
    thresholds: Thresholds
    detection: DetectionConfig
    device: torch.device
    weights_sha256: str = ""
    batch_size: int = 16
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> DataConfig:
        """The data settings of the run, as far as the card tells them."""
        return data_settings(self.card, self.preprocessing)

    @classmethod
    def load(cls, run: Path | str, weights: str = "best", device: str = "auto", *, batch_size: int = 16) -> Predictor:
        """The predictor of a run folder.

        Raises:
            CheckpointError: weights or card are missing, damaged, or contradict themselves. ConfigError: no such device.
        """
        run, chosen = Path(run), pick_device(device)
        path = weights_path(run, weights)
        method, card = weights_files.load(path, chosen)
        preprocessing = prepared(card, path)
        digest = sha256_file(path)
        thresholds = load_thresholds(run, weights, digest) or Thresholds(weights=weights, weights_sha256=digest)
        detection = from_plain(DetectionConfig, card.get("detection", {}), where=str(path.with_suffix(".json")))
        return cls(method, preprocessing, thresholds, detection, chosen, digest, batch_size, card)

    # ---- one image -----------------------------------------------------------------------------------------------------

    def predict(self, image: Image | Path | str | NDArray[Any]) -> CaseResult:
        """One image or volume: a file or series folder, an :class:`healmap.io.Image`, or a plane (H, W[, 3]) as an array.

        Raises:
            UnreadableError and its kin: the file cannot be used. DataError: the method's answer is not a number.
        """
        if not isinstance(image, Image):
            image = as_image(image) if isinstance(image, np.ndarray) else read_case(Path(image))
        result = self._volume(image) if image.is_volume else self.predict_planes([image])[0]
        if isinstance(result, DataError):
            raise result
        return result

    def predict_planes(self, images: Sequence[Image]) -> list[CaseResult | DataError]:
        """Single planes, in one batch. An image whose answer is not a number gives the error in its place."""
        seen = [self._prepare(image, 0, None, stats_of(image, self.preprocessing)) for image in images]
        answers = apply(self.method, np.stack([x for _, x, _ in seen]), self.device)
        results: list[CaseResult | DataError] = []
        for image, (plane, x, stats), answer in zip(images, seen, answers, strict=True):
            if not sound(answer):
                results.append(DataError("the method's answer is not a number", where=_name(image), hint=ADVICE))
                continue
            native = to_native(answer, x, plane, stats, self.preprocessing)
            mask = self.mask(native.anomaly_map)
            findings = (
                findings_of(mask, native.anomaly_map, image) if mask is not None and native.anomaly_map is not None else ()
            )
            results.append(
                CaseResult(
                    native.score,
                    self.thresholds.image.value,
                    self.call(native.score),
                    image,
                    native.anomaly_map,
                    native.healed,
                    mask,
                    findings,
                    (),
                    native.maps,
                )
            )
        return results

    def _volume(self, image: Image) -> CaseResult:
        maps = masks = healed = None
        scores: list[tuple[int, float]] = []
        axis = plane_axis(image, self.preprocessing.config.axis)
        for index, native in self.slices(image):
            scores.append((index, native.score))
            if native.anomaly_map is not None:
                maps = np.zeros(image.shape, np.float32) if maps is None else maps
                put_plane(maps, native.anomaly_map, index, axis, like=image)
                mask = self.mask(native.anomaly_map)
                if mask is not None:
                    masks = np.zeros(image.shape, bool) if masks is None else masks
                    put_plane(masks, mask, index, axis, like=image)
            if native.healed is not None:
                if healed is None:
                    base = self.preprocessing.to_channels(image.array, colour=image.colour)
                    healed = np.array(base, np.float32)
                put_plane(healed, native.healed, index, axis, like=image)
        score = max(score for _, score in scores)
        findings = findings_of(masks, maps, image) if masks is not None and maps is not None else ()
        return CaseResult(
            score, self.thresholds.image.value, self.call(score), image, maps, healed, masks, findings, tuple(scores)
        )

    def slices(self, image: Image) -> Iterator[tuple[int, PlaneResult]]:
        """The answers for a volume's slices, a batch in memory at a time. Slices of nothing but background are left out.

        Raises:
            UnreadableError: the volume holds nothing but background.
        """
        axis, stats = plane_axis(image, self.preprocessing.config.axis), stats_of(image, self.preprocessing)
        count = n_slices(image, axis)
        used = [i for i in range(count) if not is_background(*plane_of(image, i, axis), stats)] or list(range(count))
        for start in range(0, len(used), self.batch_size):
            part = used[start : start + self.batch_size]
            seen = [self._prepare(image, i, axis, stats) for i in part]
            answers: list[Applied] = apply(self.method, np.stack([x for _, x, _ in seen]), self.device)
            for index, (plane, x, _), answer in zip(part, seen, answers, strict=True):
                if not sound(answer):
                    raise DataError("the method's answer is not a number", where=f"{_name(image)}, slice {index}", hint=ADVICE)
                yield index, to_native(answer, x, plane, stats, self.preprocessing)

    def _prepare(
        self, image: Image, index: int, axis: int | None, stats: dict[str, Any]
    ) -> tuple[NDArray[Any], NDArray[np.float32], dict]:
        plane, padding = plane_of(image, index, axis)
        return plane, self.preprocessing.normalise(self.preprocessing.prepare(plane, stats, padding), stats), stats

    # ---- decisions -----------------------------------------------------------------------------------------------------

    def call(self, score: float) -> bool | None:
        threshold = self.thresholds.image.value
        return None if threshold is None else score >= threshold

    def mask(self, anomaly_map: NDArray[np.float32] | None) -> NDArray[np.bool_] | None:
        """The map (H, W) at or above the pixel threshold, parts of at most ``min_area`` pixels left out."""
        threshold = self.thresholds.pixel.value
        if anomaly_map is None or threshold is None:
            return None
        return remove_small(anomaly_map >= threshold, self.detection.min_area)


def weights_path(run: Path, weights: str) -> Path:
    """Raises CheckpointError: the run has no such weights."""
    path = run / "weights" / f"{weights}.safetensors"
    if not path.is_file():
        hint = "give a run folder made by healmap train"
        raise CheckpointError(f"no weights '{weights}' in this run", where=str(path), hint=hint)
    return path


def prepared(card: Mapping[str, Any], path: Path) -> Preprocessing:
    """How images are prepared for the method of this card.

    Raises:
        CheckpointError: the card does not say, or it prepares images of another shape than the method takes.
    """
    where = str(path.with_suffix(".json"))
    if not isinstance(card.get("preprocessing"), dict):
        raise CheckpointError("the card does not say how images are prepared", where=where)
    preprocessing, spec = Preprocessing.from_plain(card["preprocessing"]), from_plain(Spec, card["spec"], where=where)
    made = preprocessing.config
    if (spec.channels, spec.height, spec.width) != (made.channels, made.size, made.size):
        takes, gets = f"{spec.channels} x {spec.height} x {spec.width}", f"{made.channels} x {made.size} x {made.size}"
        raise CheckpointError(f"the method takes images of {takes}, its card prepares {gets}", where=where, hint="train again")
    return preprocessing


def data_settings(card: Mapping[str, Any], preprocessing: Preprocessing) -> DataConfig:
    return from_plain(DataConfig, card.get("data") or to_plain(preprocessing.config), where="card: data")


def as_image(array: NDArray[Any]) -> Image:
    """A plane (H, W) or (H, W, 3) as an image without geometry. Raises UsageError for other shapes."""
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return Image(np.asarray(array), "array", colour=array.ndim == 3)
    raise UsageError(
        f"an array of shape {array.shape} is no plane", hint="give (H, W) or (H, W, 3), or a volume as healmap.io.Image"
    )


def _name(image: Image) -> str:
    return str(image.sources[0]) if image.sources else "image"
