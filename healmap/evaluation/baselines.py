"""What needs no learning of anatomy: brightness itself, and a logistic regression on thumbnails. A method has to beat them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import curves, image_level
from ..metrics.bins import PixelTally
from ..metrics.froc import threshold_grid
from ..types import DISEASED, HEALTHY

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.preprocess import Preprocessing

THUMBNAIL = 16
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of the L2 penalty that cross-validation chooses from
Array = NDArray[np.float32]

REDUCERS: Mapping[str, Callable[[Array], float]] = {
    "mean brightness": lambda x: float(x.mean()),
    "90 % quantile of the brightness": lambda x: float(np.quantile(x, 0.90)),
    "99 % quantile of the brightness": lambda x: float(np.quantile(x, 0.99)),
}


def brightness(image: Array) -> Array:
    """(C, S, S) in [-1, 1] -> (S, S) in [0, 1], the map of the intensity baseline: bright is suspicious."""
    return (image.mean(axis=0) + 1) / 2


@dataclass(frozen=True)
class IntensityBaseline:
    """Brightness as the map, and the summary of it that separates the training labels best as the score.

    pixel_threshold, sweep: found on validation data as for a method; None, empty: there are none.
    """

    reducer: str
    pixel_threshold: float | None
    sweep: tuple[float, ...]

    def score(self, image: Array) -> float:
        return REDUCERS[self.reducer](brightness(image))

    def about(self) -> dict[str, Any]:
        return {
            "map": "normalised intensity",
            "score": f"{self.reducer}, chosen on the train split",
            "pixel_threshold": self.pixel_threshold,
        }


def fit_intensity(train: Dataset | None, val: Dataset | None, preprocessing: Preprocessing) -> IntensityBaseline:
    """The baseline with its summary chosen by AUROC on the train split and its pixel threshold by pooled Dice on validation."""
    reducer = next(iter(REDUCERS))
    if train is not None:
        labels, chosen = _labelled(train)
        if 0 < labels.sum() < len(labels):
            values = {name: np.zeros(len(chosen)) for name in REDUCERS}
            for place, index in enumerate(chosen):
                bright = brightness(train.image(index))
                for name, reduce in REDUCERS.items():
                    values[name][place] = reduce(bright)
            reducer = max(REDUCERS, key=lambda name: image_level.auroc(labels, values[name]))
    threshold, sweep = _intensity_threshold(val, preprocessing) if val is not None else (None, ())
    return IntensityBaseline(reducer, threshold, sweep)


def _intensity_threshold(val: Dataset, preprocessing: Preprocessing) -> tuple[float | None, tuple[float, ...]]:
    tally = PixelTally()
    for index in range(len(val)):
        if val.items[index].label not in (HEALTHY, DISEASED):
            continue
        native = val.native(index)
        if native.mask is not None:
            bright = preprocessing.restore(brightness(val.image(index)), native.plane.shape[:2]).clip(min=0)
            tally.add("", bright, native.mask)
    bins = tally.bins()
    positive, negative = bins.pooled()
    if not positive.sum():
        return None, ()
    value = curves.best_dice_threshold(bins.values, positive, negative)
    return value, tuple(threshold_grid(bins.values, positive + negative, extra=[value]).tolist())


@dataclass(frozen=True)
class ThumbnailBaseline:
    """Logistic regression on the standardised pixels of 16 x 16 thumbnails, trained on the train split."""

    model: Any
    images: int
    strength: float
    searched: bool  # whether the strength was chosen; too few patients leave it at the middle one

    def score(self, image: Array) -> float:
        return float(self.model.decision_function(thumbnail(image)[None])[0])

    def about(self) -> dict[str, Any]:
        return {
            "model": f"logistic regression on {THUMBNAIL}x{THUMBNAIL} thumbnails, standardised",
            "trained_on": self.images,
            "penalty": f"L2, C = {self.strength:g}, "
            + ("by cross-validation over patients of the train split" if self.searched else "too few patients to choose it"),
        }


def thumbnail(image: Array) -> Array:
    """(C, S, S) -> (256,): channels averaged, shrunk with antialiasing."""
    from ..data.preprocess import resize

    return resize(image.mean(axis=0), (THUMBNAIL, THUMBNAIL)).ravel()


def fit_thumbnails(train: Dataset | None) -> ThumbnailBaseline | str:
    """The trained baseline, or why there is none."""
    if train is None:
        return "the data have no train split"
    labels, chosen = _labelled(train)
    if not 0 < labels.sum() < len(labels):
        return "the train split needs healthy and diseased images"
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.stack([thumbnail(train.image(i)) for i in chosen])
    groups = np.array([train.items[i].patient_id for i in chosen])
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    count, folds = min(5, *(len(set(groups[labels == k])) for k in (0, 1))), []
    if count >= 2:
        # Folds keep a patient's images together: neighbouring slices are almost copies of each other.
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        folds = [fold for fold in splitter.split(x, labels, groups) if all(len(set(labels[part])) == 2 for part in fold)]
    if folds:
        search = GridSearchCV(model, {"logisticregression__C": list(STRENGTHS)}, scoring="roc_auc", cv=folds)
        model = search.fit(x, labels).best_estimator_
    else:
        model.fit(x, labels)
    return ThumbnailBaseline(model, len(chosen), float(model.named_steps["logisticregression"].C), bool(folds))


def _labelled(dataset: Dataset) -> tuple[NDArray[np.int64], list[int]]:
    chosen = [i for i, item in enumerate(dataset.items) if item.label in (HEALTHY, DISEASED)]
    return np.array([dataset.items[i].label == DISEASED for i in chosen], dtype=np.int64), chosen
