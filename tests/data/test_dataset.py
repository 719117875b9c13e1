"""Datasets of plane images: what comes out is what the files and the table say; kinds, masks, domains, fingerprints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pil

from healmap.data.dataset import open_dataset
from healmap.data.preprocess import Preprocessing
from healmap.data.table import Row, Table, read_table, write_table
from healmap.errors import ConfigError, UsageError
from healmap.experiment import DataConfig
from healmap.types import Domains

from .conftest import noise, write_png

CONFIG = DataConfig(size=32, normalisation="none")


def test_images_are_the_files_pixels(phantoms: Table) -> None:
    dataset = open_dataset(phantoms, "train", CONFIG)
    assert len(dataset) == sum(r.split == "train" for r in phantoms)
    for i in (0, 7, len(dataset) - 1):
        raw = np.asarray(Pil.open(dataset.items[i].path)).astype(np.float32)
        assert np.allclose(dataset.image(i)[0], raw / 127.5 - 1, atol=1e-6)
    assert np.array_equal(dataset.images([3, 1])[1], dataset.image(1))
    assert dataset.images([]).shape == (0, 1, 32, 32)


def test_one_image_and_many_and_prepared_by_hand_are_the_same_bits(phantoms: Table) -> None:
    dataset = open_dataset(phantoms, "val", DataConfig(size=24, normalisation="foreground-median"))
    together, p = dataset.images(range(len(dataset))), dataset.preprocessing
    for i in range(len(dataset)):
        native = dataset.native(i)
        assert np.array_equal(p.normalise(p.prepare(native.plane, native.stats), native.stats), together[i])


def test_labels_masks_and_counts(phantoms: Table) -> None:
    dataset = open_dataset(phantoms, None, CONFIG)
    labels = dataset.labels()
    assert labels.dtype == np.int64
    for i, (item, label) in enumerate(zip(dataset.items, labels, strict=True)):
        mask = dataset.mask(i)
        assert mask is not None
        assert mask.shape == (32, 32)
        assert mask.any() == (item.label == "diseased") == bool(label)
        if i % 20 == 0:
            native = dataset.native(i).mask
            assert native is not None
            assert np.array_equal(native, mask)  # 32 px are stored and 32 are asked for
    counts = dataset.counts()
    assert counts["diseased"] == counts["annotated"] == int(labels.sum())
    assert counts["patients"] == 20


def test_diseased_without_annotation_has_no_mask_and_boxes_are_filled(tmp_path: Path) -> None:
    for k in range(3):
        write_png(tmp_path / f"{k}.png", noise(k, (64, 32)))
    rows = (Row("0.png", "diseased"), Row("1.png", "unknown"), Row("2.png", "diseased", box="4,8,10,6; 20,40,3,2.4"))
    dataset = open_dataset(Table(tmp_path, rows), None, DataConfig(size=64))
    assert dataset.mask(0) is None
    assert dataset.mask(1) is None
    assert dataset.native(0).mask is None
    expected = np.zeros((64, 32), np.bool_)
    expected[8:14, 4:14] = True
    expected[40:42, 20:23] = True
    native = dataset.native(2).mask
    assert native is not None
    assert np.array_equal(native, expected)
    grid = dataset.mask(2)
    assert grid is not None
    assert np.array_equal(grid[:, 16:48], expected)  # padded to a square of 64
    assert dataset.labels().tolist() == [1, -1, 1]


def test_kinds_mix_and_keep_their_precision(tmp_path: Path) -> None:
    fine = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    write_png(tmp_path / "healthy" / "a.png", (fine * 255).astype(np.uint8))
    tifffile.imwrite(tmp_path / "healthy" / "b.tif", (fine * 65535).astype(np.uint16))
    tifffile.imwrite(tmp_path / "healthy" / "c.tif", fine * 1000 - 500)
    write_png(tmp_path / "healthy" / "d.png", np.stack([(fine * 255).astype(np.uint8)] * 3, -1))
    dataset = open_dataset(tmp_path, None, DataConfig(size=32, normalisation="percentile", percentiles=(0, 100)))
    assert {e.plane.kind for e in dataset.entries} == {"uint8", "uint16", "float32"}
    images = dataset.images([2, 0, 1, 3])
    assert np.abs(images[2] - images[0]).max() < 4e-5  # 16 bits
    assert np.abs(images[1] - images[0]).max() < 2 / 255
    assert np.array_equal(images[1], images[3])
    rgb = open_dataset(tmp_path, None, DataConfig(size=32, channels=3))
    assert rgb.images(range(4)).shape == (4, 3, 32, 32)
    assert rgb.spec.channels == 3


def test_prediction_uses_the_training_s_preprocessing(phantoms: Table) -> None:
    train = open_dataset(phantoms, "train", DataConfig(size=24, normalisation="zscore", fit="crop"))
    stored = Preprocessing.from_plain(train.preprocessing.to_plain())
    test = open_dataset(phantoms, "test", DataConfig(size=99, normalisation="none", batch_size=3), stored)
    assert test.images([0]).shape == (1, 1, 24, 24)
    assert test.preprocessing.fitted == train.preprocessing.fitted
    assert (test.config.size, test.config.fit, test.config.normalisation, test.config.batch_size) == (24, "crop", "zscore", 3)
    assert test.spec == train.spec


def test_splits_and_selections_that_do_not_exist_are_named(phantoms: Table, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'training' is none of train, val, test"):
        open_dataset(phantoms, "training", CONFIG)
    write_png(tmp_path / "healthy" / "a.png", noise(0))
    with pytest.raises(UsageError, match=r"no row has a split.*healmap data split"):
        open_dataset(tmp_path, "train", CONFIG)
    with pytest.raises(UsageError, match="names no column"):
        open_dataset(phantoms, None, replace(CONFIG, select="modality=flair"))
    with pytest.raises(UsageError, match="holds no row"):
        open_dataset(phantoms, None, replace(CONFIG, select="class=blue"))
    some = open_dataset(phantoms, None, replace(CONFIG, select="class=bright"))
    assert {i.row["class"] for i in some.items} == {"bright"}
    assert "left out by select" in some.notes[0]


def test_healthy_slices_near_a_lesion_can_be_left_out(phantoms: Table) -> None:
    plain = open_dataset(phantoms, "train", CONFIG)
    strict = open_dataset(phantoms, "train", replace(CONFIG, min_slices_to_tumour=2))
    near = [i for i in plain.items if i.label == "healthy" and i.row["slices_to_tumour"] == "1"]
    assert near
    assert len(strict) == len(plain) - len(near)
    assert f"{len(near)} healthy slices left out" in strict.notes[0]
    assert "does not say" in strict.notes[1]  # slices of healthy patients have no distance


def test_classes_come_healthy_first_and_alike_in_every_split(phantoms: Table) -> None:
    config = replace(CONFIG, domain_column="class")
    for split in ("train", "val", "test"):
        dataset = open_dataset(phantoms, split, config)
        names = dataset.spec.domains.names
        assert names[0] == "none"
        assert set(names[1:]) <= {"bright", "dark"}
        assert [names[k] for k in dataset.labels()] == [i.row["class"] for i in dataset.items]


def test_a_class_that_was_not_trained_is_refused(phantoms: Table) -> None:
    with pytest.raises(UsageError, match="class 'bright' was not trained"):
        open_dataset(phantoms, None, replace(CONFIG, domain_column="class"), domains=Domains(("none", "blue")))


def test_attributes_are_several_at_once(tmp_path: Path) -> None:
    for k in range(3):
        write_png(tmp_path / f"{k}.png", noise(k))
    (tmp_path / "labels.csv").write_text(
        "path,label,oedema,mass\n0.png,healthy,0,-1\n1.png,diseased,1,no\n2.png,diseased,yes,TRUE\n"
    )
    dataset = open_dataset(tmp_path, None, replace(CONFIG, domain_column="attributes", attributes=("mass", "oedema")))
    assert dataset.labels().tolist() == [[0, 0], [0, 1], [1, 1]]
    assert dataset.labels().dtype == np.float32
    assert dataset.spec.domains == Domains(("mass", "oedema"), exclusive=False)
    with pytest.raises(UsageError, match="no column 'age'"):
        open_dataset(tmp_path, None, replace(CONFIG, domain_column="attributes", attributes=("age",)))
    with pytest.raises(UsageError, match="label is 'healthy'"):
        open_dataset(tmp_path, None, replace(CONFIG, domain_column="attributes", attributes=("label",)))


def test_a_fingerprint_follows_the_data_not_the_place(phantoms: Table, tmp_path: Path) -> None:
    one = open_dataset(phantoms, "train", CONFIG)
    shutil.copytree(phantoms.root, tmp_path / "copy")
    two = open_dataset(tmp_path / "copy", "train", CONFIG)
    assert one.fingerprint == two.fingerprint
    assert one.store.key == two.store.key
    others = [open_dataset(phantoms, "val", CONFIG), one.subset(range(5)), one.subset([0, 2, 1, 3, 4])]
    table = read_table(tmp_path / "copy")
    renamed = replace(table, rows=tuple(replace(r, patient_id=r.patient_id + "x") for r in table))
    others.append(open_dataset(renamed, "train", CONFIG))
    first = Path(two.items[0].path)
    picture = np.asarray(Pil.open(first)).copy()
    picture[0, 0] ^= 1
    Pil.fromarray(picture).save(first)
    others.append(open_dataset(tmp_path / "copy", "train", CONFIG))
    prints = {d.fingerprint for d in [one, *others]}
    assert len(prints) == len(others) + 1


def test_a_subset_keeps_its_order_and_shares_the_store(phantoms: Table) -> None:
    dataset = open_dataset(phantoms, "train", CONFIG)
    part = dataset.subset([5, 2])
    assert [i.key for i in part.items] == [dataset.items[5].key, dataset.items[2].key]
    assert np.array_equal(part.images([0, 1]), dataset.images([5, 2]))
    assert part.store is dataset.store


def test_a_window_that_was_fitted_on_other_kinds_is_an_error_not_a_guess(tmp_path: Path) -> None:
    write_png(tmp_path / "eight" / "a.png", noise(0))
    (tmp_path / "float").mkdir()
    tifffile.imwrite(tmp_path / "float" / "b.tif", noise(1) / np.float32(7))
    eight = open_dataset(tmp_path / "eight", None, DataConfig(size=16, normalisation="window"))
    with pytest.raises(ConfigError, match="not fitted"):
        open_dataset(tmp_path / "float", None, eight.config, eight.preprocessing)


def test_awkward_names_work(tmp_path: Path) -> None:
    names = ["a b.png", "ü,x.png", 'q"uote.png', "new\nline.png", "=cmd.png", "-x.png", "#1.png"]
    for k, name in enumerate(names):
        write_png(tmp_path / name, noise(k))
    write_table(Table(tmp_path, tuple(Row(n, "healthy") for n in names)), tmp_path / "labels.csv")
    assert [i.row.path for i in open_dataset(tmp_path, None, CONFIG).items] == names


def test_real_slices_open_with_their_published_counts(shared: Path) -> None:
    dataset = open_dataset(shared / "lgg_flair", "val", DataConfig(size=64, normalisation="foreground-median"))
    counts = dataset.counts()
    assert (counts["healthy"], counts["diseased"], counts["patients"], counts["annotated"]) == (84, 78, 8, 78)
    assert dataset.native(0).plane.shape == (256, 256)
    # Medians are brought to one place: 1 / 2.5 of the range, whatever the scanner.
    images, medians = dataset.images(range(len(dataset))), []
    for i in range(len(dataset)):
        threshold = dataset.preprocessing.normalise(
            np.full((64, 64), dataset.stats(i)["threshold"], np.float32), dataset.stats(i)
        )
        medians.append(np.median(images[i][images[i] > threshold.max()]))
    gaps = np.abs(np.array(medians) - (2 / 2.5 - 1))
    assert np.median(gaps) < 0.05
    assert gaps.max() < 0.2
