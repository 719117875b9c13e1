from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap.detection.predictor import Predictor
from healmap.detection.thresholds import Threshold, Thresholds, load_thresholds, save_thresholds
from healmap.errors import CheckpointError, ConfigError, DataError, UsageError
from healmap.experiment import DetectionConfig
from healmap.io.image import Geometry, Image

AFFINE = np.array([[-2.0, 0, 0, 90], [0, -2.0, 0, 126], [0, 0, 3.0, -70], [0, 0, 0, 1]])
LEVEL = (228 - 127.5) / 127.5 / 2  # what Dimmer's map holds inside a lesion of 228


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_run(tmp_path / "run", monkeypatch, detection=DetectionConfig(min_area=3))


@pytest.fixture
def predictor(run: Path) -> Predictor:
    predictor = Predictor.load(run, device="cpu")
    thresholds = Thresholds(image=Threshold(value=0.2), pixel=Threshold(value=0.1), weights_sha256=predictor.weights_sha256)
    save_thresholds(thresholds, run)
    return Predictor.load(run, device="cpu")


def test_a_plane_comes_back_at_its_own_size_and_units(predictor: Predictor) -> None:
    image = plane(lesion=(10, 12, 12))
    got = predictor.predict(image)
    assert got.anomaly_map is not None
    assert got.mask is not None
    assert got.healed is not None
    assert got.anomaly_map.shape == got.mask.shape == got.healed.shape == image.shape
    assert got.anomaly_map.dtype == np.float32
    assert got.score == pytest.approx(LEVEL, abs=0.02)
    assert got.call is True
    # The lesion's middle is healed to the middle of the range, in raw units; far from it nothing changes at all.
    assert got.healed[16, 18] == pytest.approx(127.5, abs=1)
    np.testing.assert_array_equal(got.healed[30:], image[30:])
    assert len(got.findings) == 1
    assert got.findings[0].centre == pytest.approx((15.5, 17.5), abs=0.5)
    assert got.findings[0].centre_mm is None
    assert predictor.predict(plane(lesion=None)).call is False


def test_displacements_are_given_in_native_pixels(predictor: Predictor) -> None:
    shift = predictor.predict(plane()).maps["displacement"]
    assert shift.shape == (48, 40, 2)
    np.testing.assert_allclose(shift, 48 / 32)


def test_small_parts_are_no_findings(predictor: Predictor) -> None:
    native = np.full((32, 32), 30, np.uint8)
    native[5, 5:8] = 250
    native[20:24, 20:24] = 250
    got = predictor.predict(native)
    assert got.mask is not None
    assert got.mask.sum() == 16
    assert [f.size for f in got.findings] == [16]


def test_an_answer_ignores_its_neighbours(predictor: Predictor) -> None:
    images = [Image(plane(k, lesion=(8, 8, 9) if k % 2 else None), "png") for k in range(5)]
    together = predictor.predict_planes(images)
    for image, got in zip(images, together, strict=True):
        alone = predictor.predict(image)
        assert not isinstance(got, DataError)
        assert got.score == pytest.approx(alone.score, abs=1e-6)
        np.testing.assert_allclose(got.anomaly_map, alone.anomaly_map, atol=1e-6)


def volume() -> Image:
    array = np.full((24, 20, 7), -1000, np.int16)
    array[2:22, 2:18, 1:6] = 100
    array[8:14, 6:12, 3] = 1800
    return Image(array, "nifti", Geometry(AFFINE, (2.0, 2.0, 3.0)), slice_axis=2)


def test_a_volume_keeps_its_grid_and_findings_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "volumes", monkeypatch, size=24, normalisation="window", window=(-1000.0, 2000.0))
    predictor = Predictor.load(run, device="cpu", batch_size=2)
    predictor.thresholds = Thresholds(image=Threshold(value=0.1), pixel=Threshold(value=0.1))
    image = volume()
    got = predictor.predict(image)
    assert got.anomaly_map is not None
    assert got.healed is not None
    assert got.anomaly_map.shape == image.shape
    assert [index for index, _ in got.slices] == [1, 2, 3, 4, 5]  # slices 0 and 6 hold nothing but air
    assert max(got.slices, key=lambda s: s[1])[0] == 3
    assert got.score == max(score for _, score in got.slices)
    assert got.anomaly_map[..., [0, 1, 5, 6]].max() == 0
    # Slice 3 is displayed turned and flipped; the map lies where the voxels do.
    np.testing.assert_array_equal(got.anomaly_map[8:14, 6:12, 3] > 0.1, True)
    assert got.anomaly_map[0:6, :, 3].max() < 0.01
    (finding,) = got.findings
    assert finding.centre == pytest.approx((10.5, 8.5, 3.0), abs=0.1)
    assert finding.centre_mm == pytest.approx(tuple((AFFINE @ [10.5, 8.5, 3, 1])[:3]), abs=0.2)
    assert finding.size_mm == pytest.approx(finding.size * 12)
    assert got.healed[10, 8, 3] == pytest.approx(500, abs=5)
    np.testing.assert_array_equal(got.healed[..., 0], -1000)


def test_without_thresholds_there_is_a_score_and_no_call(run: Path) -> None:
    got = Predictor.load(run, device="cpu").predict(plane(lesion=(9, 9, 9)))
    assert got.score > 0.3
    assert got.threshold is None
    assert got.call is None
    assert got.mask is None


def test_thresholds_of_other_weights_are_not_used(run: Path) -> None:
    save_thresholds(Thresholds(image=Threshold(value=0.5), weights_sha256="of other weights"), run)
    assert Predictor.load(run, device="cpu").thresholds.image.value is None


def test_damaged_thresholds_are_refused(run: Path) -> None:
    for text in ("{", '{"format": "other"}', '{"format": "healmap-thresholds", "version": 1, "image": 3}'):
        (run / "weights" / "thresholds.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"thresholds\.json"):
            load_thresholds(run, "best", "x")


def test_errors_name_the_cause(run: Path, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights 'last'"):
        Predictor.load(run, weights="last")
    with pytest.raises(ConfigError, match="device 'cuda:77' is not available"):
        Predictor.load(run, device="cuda:77")
    with pytest.raises(UsageError, match="is no plane"):
        predictor.predict(np.zeros((3, 4, 5, 6)))
    predictor.method.level.data.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(DataError, match="not a number"):
        predictor.predict(plane())


def test_a_file_is_read_and_colour_becomes_grey(predictor: Predictor, tmp_path: Path) -> None:
    picture = np.repeat(plane(lesion=(10, 12, 12))[..., None], 3, axis=2)
    Pil.fromarray(picture).save(tmp_path / "colour.png")
    got = predictor.predict(tmp_path / "colour.png")
    assert got.healed is not None
    assert got.healed.shape == picture.shape[:2]
    assert got.call is True
