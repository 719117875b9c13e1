"""The trivial baselines of a comparison: once for all runs, on the images as one of them sees these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..types import DISEASED
from .cases import save_cases
from .collect import Collector, Detectors, Seen
from .evaluate import SEED, baseline_figures, collect_baselines, fit_baselines
from .figures import Resampler, Tree
from .lineup import Cases, Request, View
from .parts import Part, Parts
from .record import baseline_facts, counts

ALL, DISEASED_ONLY = "all", "diseased"  # images that a run was shown


class Trivial:
    """Fitted when first asked for. name: the run whose view they share."""

    def __init__(self, name: str, view: View, cases: Cases, request: Request) -> None:
        self.name, self.view, self.cases, self.request = name, view, cases, request
        self._fitted: Detectors | None = None

    def of(self, images: str, parts: Parts) -> Part:
        """Figures over all images, with the cases' inputs and annotations beside them; or over the diseased images."""
        whole, view = self.view.whole, self.view
        test = whole.subset([i for i, item in enumerate(whole.items) if images == ALL or item.label == DISEASED])
        shown = list(self.cases) if images == ALL else []
        depends = {
            "what": "baselines",
            "preprocessing": view.preprocessing.to_plain(),
            "min_area": view.min_area,
            "fitted on": {name: view.sets[name].fingerprint for name in ("train", "val") if name in view.sets},
            "split": self.request.split,
            "images": test.fingerprint,
            "shown": shown,
            "bootstrap": [self.request.bootstrap, SEED],
        }

        def make(folder: Path) -> tuple[Tree, dict[str, Any]]:
            place = {item.key: i for i, item in enumerate(test.items)}
            save_cases([place[key] for key in shown], test, view.preprocessing, folder)
            detectors = self._fresh()
            assert detectors.intensity is not None
            for index, item in enumerate(test.items):
                seen = Seen(item.key, item.row.path, item.patient_id, item.slice, item.label, 0.0)
                collect_baselines(detectors, seen, test.image(index), test.native(index), view.preprocessing)
            draw = Resampler([item.patient_id for item in test.items], self.request.bootstrap, SEED)
            return baseline_figures(detectors, draw), {**counts(detectors.intensity), "about": baseline_facts(detectors)}

        return parts.of(depends, make)

    def _fresh(self) -> Detectors:
        """The fitted baselines before they saw an image."""
        if self._fitted is None:
            view = self.view
            self._fitted = fit_baselines(view.sets, self.request.split, view.preprocessing, min_area=view.min_area)
        intensity = self._fitted.intensity_baseline
        assert intensity is not None
        collector = Collector(intensity.pixel_threshold, np.array(intensity.sweep), self.view.min_area)
        return replace(self._fitted, intensity=collector, thumbnail_scores=[])
