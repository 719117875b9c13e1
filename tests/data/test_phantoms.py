from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from scipy.ndimage import binary_dilation, label
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from healmap.data.dataset import open_dataset
from healmap.data.phantoms import Look, make_phantoms
from healmap.data.preprocess import resize
from healmap.data.table import Table, read_table
from healmap.errors import UsageError
from healmap.experiment import DataConfig


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def picture(table: Table, name: str) -> np.ndarray:
    return np.asarray(Pil.open(table.root / name))


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_phantoms(tmp_path / name, patients=4, size=32, seed=seed)
    a, b, c = (digest(tmp_path / n) for n in "abc")
    assert a == b
    images = {n: h for n, h in a.items() if n.startswith("images")}
    assert all(c.get(n) != h for n, h in images.items())


def test_twins_equal_their_image_outside_the_lesion(phantoms: Table) -> None:
    sick = [r for r in phantoms if r.label == "diseased"]
    assert sick
    for row in sick:
        image, twin, mask = (picture(phantoms, n).astype(int) for n in (row.path, row["twin"], row.mask))
        lesion = mask > 0
        rim = binary_dilation(lesion, iterations=4)
        assert np.array_equal(image[~rim], twin[~rim])
        assert np.abs(image - twin)[lesion].mean() > 15
        assert label(lesion)[1] == 1
        assert lesion.sum() == int(row["tumour_pixels"])


def test_the_table_is_what_the_folder_holds(phantoms: Table) -> None:
    table = read_table(phantoms.root)
    assert table.rows[0].path == phantoms.rows[0].path
    ill = {r.patient_id for r in table if r.label == "diseased"}
    everybody = {r.patient_id for r in table}
    assert len(ill) == 14  # 70 % of 20
    assert len(everybody) == 20
    assert all(any(r.label == "healthy" for r in table if r.patient_id == p) for p in ill)
    for split in ("train", "val", "test"):
        part = [r for r in table if r.split == split]
        assert {r.label for r in part} == {"healthy", "diseased"}
        assert any(r.patient_id not in ill for r in part)
    for row in table:
        assert picture(table, row.path).dtype == np.uint8
        assert (row["slices_to_tumour"] == "") == (row.patient_id not in ill)


def test_thresholds_and_thumbnails_do_not_solve_them(tmp_path: Path) -> None:
    table = make_phantoms(tmp_path / "set", seed=5)
    config = DataConfig(size=64, normalisation="foreground-median")
    train = open_dataset(table, "train", config)
    test = open_dataset(table, "test", config, train.preprocessing)
    x, z = (d.images(range(len(d)))[:, 0] for d in (train, test))
    masks = np.stack([test.mask(i) for i in range(len(test))])
    assert average_precision_score(masks.ravel(), z.ravel()) < 0.35

    def thumbnails(images: np.ndarray) -> np.ndarray:
        return np.stack([resize(i, (16, 16)).ravel() for i in images])

    model = LogisticRegression(C=0.1, max_iter=2000).fit(thumbnails(x), train.labels())
    assert roc_auc_score(test.labels(), model.decision_function(thumbnails(z))) < 0.85
    # ... but a lesion stands out against its own surroundings, or nobody could learn to see it.
    inside = [abs(z[i][m].mean() - z[i][binary_dilation(m, iterations=6) & ~binary_dilation(m, iterations=3)].mean())
              for i, m in enumerate(masks) if m.any()]  # fmt: skip
    assert np.median(inside) > 0.15


def test_the_look_is_a_parameter(tmp_path: Path) -> None:
    small = make_phantoms(tmp_path / "s", patients=6, look=Look(radius=(0.12, 0.13), diseased=1.0))
    large = make_phantoms(tmp_path / "l", patients=6, look=Look(radius=(0.3, 0.32), diseased=1.0))
    biggest = [max(int(r["tumour_pixels"]) for r in t) for t in (small, large)]
    assert biggest[0] * 2 < biggest[1]
    assert all(any(r.label == "diseased" for r in small if r.patient_id == p) for p in {r.patient_id for r in small})


def test_without_pairs_training_images_have_no_twin(tmp_path: Path) -> None:
    with_pairs, without = (make_phantoms(tmp_path / str(p), patients=10, size=32, pairs=p) for p in (True, False))
    for row, bare in zip(with_pairs, without, strict=True):
        assert (row.path, row.label, row.split, row.mask) == (bare.path, bare.label, bare.split, bare.mask)
        assert bare["twin"] == ("" if row.split == "train" else row["twin"])
        assert bool(row["twin"]) == (row.label == "diseased")
    assert sorted(p.name for p in (without.root / "twins").iterdir()) == sorted(
        Path(r["twin"]).name for r in without if r["twin"]
    )


def test_strange_requests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        make_phantoms(tmp_path)
    with pytest.raises(UsageError, match="at least 1 patient"):
        make_phantoms(tmp_path / "x", patients=0)
