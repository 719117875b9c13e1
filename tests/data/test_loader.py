"""Batches are a function of (seed, k): that is what exact resumption and data-parallel training rest on."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from healmap.data.dataset import Dataset, open_dataset
from healmap.data.loader import Loader
from healmap.data.table import Row, Table
from healmap.errors import UsageError
from healmap.experiment import DataConfig
from healmap.types import Batch, Needs

from .conftest import noise, write_png

ALL = list(Needs)


@pytest.fixture(scope="module")
def train(phantoms: Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(phantoms, "train", DataConfig(size=16), cache=tmp_path_factory.mktemp("cache"))


def made(dataset: Dataset, needs: Needs, **options: object) -> Loader:
    return Loader(dataset, needs, **{"batch_size": 6, "seed": 0, **options})  # type: ignore[arg-type]


def numbered(folder: Path, labels: list[str], patients: list[str] | None = None) -> Dataset:
    """A data set whose image k has the constant value k, so that a batch says which images it holds."""
    rows = []
    for k, label in enumerate(labels):
        write_png(folder / f"{k}.png", np.full((8, 8), k, np.uint8))
        rows.append(Row(f"{k}.png", label, patients[k] if patients else ""))
    return open_dataset(Table(folder, tuple(rows)), None, DataConfig(size=8, normalisation="none"))


def numbers(images: torch.Tensor | None) -> list[int]:
    assert images is not None
    return [round((float(v) + 1) * 127.5) for v in images[:, 0, 0, 0]]


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch)]
    return all((x is None and y is None) or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)


@pytest.mark.parametrize("needs", ALL)
def test_resuming_at_any_batch_continues_exactly(train: Dataset, needs: Needs) -> None:
    straight = list(itertools.islice(made(train, needs, flip=True, workers=0).forever(), 60))
    for workers, start in ((0, 17), (1, 1), (3, 41)):
        resumed = itertools.islice(made(train, needs, flip=True, workers=workers).forever(start), 60 - start)
        assert all(same(a, b) for a, b in zip(straight[start:], resumed, strict=True))
    other = next(made(train, needs, flip=True, seed=1).forever())
    assert not same(straight[0], other)


@pytest.mark.parametrize("needs", ALL)
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_same_global_batch(train: Dataset, needs: Needs, world: int) -> None:
    whole = made(train, needs, flip=True)
    for k in (0, 5, 40):
        parts = [made(train, needs, flip=True, rank=r, world=world).batch(k) for r in range(world)]
        alone = whole.batch(k)
        assert torch.equal(torch.cat([p.image for p in parts]), alone.image)
        if alone.label is not None:
            assert torch.equal(torch.cat([p.label for p in parts]), alone.label)  # type: ignore[misc]
        if alone.healthy is not None:
            assert torch.equal(torch.cat([p.healthy for p in parts]), alone.healthy)  # type: ignore[misc]


def test_a_pass_shows_every_image_once_and_passes_differ(tmp_path: Path) -> None:
    dataset = numbered(tmp_path, ["healthy"] * 13)
    loader = made(dataset, Needs.HEALTHY, batch_size=4)
    assert len(loader) == 4
    one = [n for b in loader.one_pass() for n in numbers(b.image)]
    assert sorted(one) == list(range(13))
    assert [n for b in loader.one_pass(2) for n in numbers(b.image)] == one[8:]
    stream = [n for b in itertools.islice(loader.forever(), 13) for n in numbers(b.image)]
    assert len(stream) == 52  # four passes of 13 in batches of 4
    passes = [stream[k : k + 13] for k in range(0, 52, 13)]
    assert all(sorted(p) == list(range(13)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4
    assert passes[0] == one


def test_batches_larger_than_the_set_repeat_it(tmp_path: Path) -> None:
    loader = made(numbered(tmp_path, ["healthy"] * 3), Needs.HEALTHY, batch_size=8)
    assert sorted(numbers(loader.batch(0).image)[:6]) == [0, 0, 1, 1, 2, 2]


def test_each_need_gets_what_it_asks_for(tmp_path: Path) -> None:
    labels = ["healthy"] * 5 + ["diseased"] * 4 + ["unknown"] * 3
    dataset = numbered(tmp_path, labels)
    groups = {"healthy": set(range(5)), "diseased": set(range(5, 9)), "unknown": set(range(9, 12))}

    def seen(needs: Needs) -> tuple[set[int], set[int], Loader]:
        loader = made(dataset, needs)
        batches = list(itertools.islice(loader.forever(), 20))
        a = {n for b in batches for n in numbers(b.image)}
        b = {n for x in batches if x.healthy is not None for n in numbers(x.healthy)}
        return a, b, loader

    assert seen(Needs.HEALTHY)[:2] == (groups["healthy"], set())
    assert seen(Needs.DISEASED_AND_HEALTHY)[:2] == (groups["diseased"], groups["healthy"])
    a, b, loader = seen(Needs.MIXED_AND_HEALTHY)
    assert (a, b) == (groups["unknown"], groups["healthy"])
    assert loader.describe() == "set A: 3 unknown, set B: 5 healthy; not used: 4 diseased"
    a, b, loader = seen(Needs.LABELLED)
    assert (a, b) == (groups["healthy"] | groups["diseased"], set())
    assert "not used: 3 unknown" in loader.describe()
    batch = loader.batch(3)
    assert batch.label is not None
    assert batch.label.dtype == torch.int64
    assert batch.label.tolist() == [int(n >= 5) for n in numbers(batch.image)]


def test_a_mixed_set_is_made_by_hiding_labels_patient_by_patient(tmp_path: Path) -> None:
    labels = ["healthy"] * 20 + ["diseased"] * 6
    patients = [f"p{k // 2}" for k in range(20)] + [f"q{k}" for k in range(6)]
    dataset = numbered(tmp_path, labels, patients)
    for share in (0.3, 0.5):
        loader = made(dataset, Needs.MIXED_AND_HEALTHY, healthy_share=share)
        a, b = set(loader.a.tolist()), set(loader.b.tolist())
        assert not a & b
        assert a | b == set(range(26))
        assert len(b) == round(20 * share)
        assert {patients[i] for i in a}.isdisjoint(patients[i] for i in b)
        assert set(range(20, 26)) <= a
        assert loader.batch(0).label is None
        assert "labels hidden" in loader.describe()
    assert set(made(dataset, Needs.MIXED_AND_HEALTHY).b) != set(made(dataset, Needs.MIXED_AND_HEALTHY, seed=1).b)


@pytest.mark.parametrize(
    ("labels", "needs", "message"),
    [
        (["diseased"] * 2, Needs.HEALTHY, "no healthy image.*0 healthy, 2 diseased, 0 unknown"),
        (["diseased"] * 2, Needs.MIXED_AND_HEALTHY, "no healthy image"),
        (["healthy"] * 2, Needs.MIXED_AND_HEALTHY, "no diseased image"),
        (["healthy"] * 2, Needs.DISEASED_AND_HEALTHY, "no diseased image"),
        (["healthy"] * 2 + ["unknown"], Needs.LABELLED, "one domain only.*2 healthy, 0 diseased, 1 unknown"),
        (["unknown"] * 2, Needs.LABELLED, "one domain only"),
    ],
)
def test_data_that_lack_what_is_needed_are_refused_with_counts(
    tmp_path: Path, labels: list[str], needs: Needs, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(numbered(tmp_path, labels), needs)
    assert "\n" not in str(caught.value)


def test_a_batch_that_cannot_be_divided_is_refused(train: Dataset) -> None:
    with pytest.raises(UsageError, match="cannot be divided among 4"):
        made(train, Needs.HEALTHY, world=4)


def test_flips_mirror_about_half_of_the_images(tmp_path: Path) -> None:
    for k in range(4):
        write_png(tmp_path / "healthy" / f"{k}.png", noise(k, (8, 8)))
    dataset = open_dataset(tmp_path, None, DataConfig(size=8))
    plain, mirrored = (made(dataset, Needs.HEALTHY, batch_size=64, flip=f).batch(0).image for f in (False, True))
    turned = [bool(torch.equal(m, p.flip(-1))) for p, m in zip(plain, mirrored, strict=True)]
    kept = [bool(torch.equal(m, p)) for p, m in zip(plain, mirrored, strict=True)]
    assert all(t != k for t, k in zip(turned, kept, strict=True))
    assert 18 <= sum(turned) <= 46


def test_loading_touches_no_global_random_state(train: Dataset) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    made(train, Needs.LABELLED, flip=True).batch(3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]


def test_threads_end_with_the_stream(train: Dataset) -> None:
    import threading
    import time

    stream = made(train, Needs.HEALTHY, workers=2).forever()
    next(stream)
    assert any("healmap-loader" in t.name for t in threading.enumerate())
    stream.close()  # type: ignore[attr-defined]
    for _ in range(100):
        if not any("healmap-loader" in t.name for t in threading.enumerate()):
            return
        time.sleep(0.02)
    raise AssertionError("a loader thread is still there")


def test_an_error_while_loading_reaches_the_caller(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = made(train, Needs.HEALTHY)

    def broken(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(Dataset, "images", broken)
    with pytest.raises(OSError, match="gone"):
        next(loader.forever())


# ---- pairs, masks, named domains ---------------------------------------------------------------------------------------------


def halves(folder: Path, *, masks: bool = True, twins: bool = True) -> Path:
    """Noise whose bright pixels are its mask and whose negative is its twin; two modalities, a third that nobody asks for."""
    rows = ["path,label,patient_id,mask,twin,modality"]
    for k in range(12):
        image = noise(k, (8, 8))
        write_png(folder / f"{k}.png", image)
        write_png(folder / f"mask{k}.png", ((image >= 128) * 255).astype(np.uint8))
        write_png(folder / f"twin{k}.png", 255 - image)
        sick = k % 2
        mask, twin = f"mask{k}.png" if sick and masks else "", f"twin{k}.png" if sick and twins else ""
        modality = ("flair", "t1c", "t2")[k % 3]
        rows.append(f"{k}.png,{'diseased' if sick else 'healthy'},p{k},{mask},{twin},{modality}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def opened(folder: Path, **config: object) -> Dataset:
    settings = {"size": 8, "normalisation": "window", "window": (0.0, 255.0), **config}
    return open_dataset(folder, None, DataConfig(**settings))  # type: ignore[arg-type]


def test_a_twin_turns_with_its_image(tmp_path: Path) -> None:
    loader = made(opened(halves(tmp_path)), Needs.PAIRED, flip=True, workers=0)
    seen = set()
    for batch in itertools.islice(loader.forever(), 6):
        assert batch.healthy is not None
        for image, twin in zip(batch.image, batch.healthy, strict=True):
            own, negative = torch.equal(image, twin), torch.allclose(image, -twin, atol=1e-5)
            assert own != negative, "a healthy image is its own twin, a diseased one has another"
            seen.add(own)
    assert seen == {True, False}
    assert "6 diseased images with their twins, 6 healthy" in loader.describe()


def test_masks_turn_with_their_images(tmp_path: Path) -> None:
    loader = made(opened(halves(tmp_path)), Needs.SEGMENTED, flip=True, workers=0)
    for batch in itertools.islice(loader.forever(), 6):
        assert batch.mask is not None
        assert batch.healthy_mask is not None
        assert batch.mask.dtype == torch.int64
        assert torch.equal(batch.mask, (batch.image[:, 0] > 0).long())
        assert not batch.healthy_mask.any()


def test_nobody_else_sees_twins_and_masks(tmp_path: Path) -> None:
    dataset = opened(halves(tmp_path))
    for needs in set(Needs) - {Needs.PAIRED, Needs.SEGMENTED}:
        batch = made(dataset, needs, workers=0).batch(0)
        assert batch.mask is None
        assert batch.healthy_mask is None
        if batch.healthy is not None:
            assert not torch.allclose(batch.image, -batch.healthy)


def test_named_domains_take_the_places_of_health(tmp_path: Path) -> None:
    dataset = opened(halves(tmp_path), domain_column="modality", domains=("t1c", "flair"))
    loader = made(dataset, Needs.DISEASED_AND_HEALTHY, workers=0)
    kinds = [item.row["modality"] for item in dataset.items]
    assert {kinds[i] for i in loader.a} == {"flair"}
    assert {kinds[i] for i in loader.b} == {"t1c"}
    assert dataset.labels().tolist() == [{"t1c": 0, "flair": 1}.get(kind, -1) for kind in kinds]
    known = made(dataset, Needs.LABELLED, workers=0)
    assert {kinds[i] for i in known.a} == {"flair", "t1c"}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"domain_column": "modality", "domains": ("flair",)}, "needs two"),
        ({"domain_column": "modality", "domains": ("flair", "pet")}, "no row has modality 'pet'"),
        ({"domain_column": "scanner", "domains": ("a", "b")}, "'scanner' is none"),
    ],
)
def test_domains_that_are_none(tmp_path: Path, config: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        opened(halves(tmp_path), **config)
    assert says in str(refused.value)


def test_what_pairs_and_masks_lack_is_said(tmp_path: Path) -> None:
    bare = opened(halves(tmp_path, masks=False, twins=False))
    with pytest.raises(UsageError, match="6 images have no mask"):
        made(bare, Needs.SEGMENTED)
    with pytest.raises(UsageError, match="no diseased image has a twin"):
        made(bare, Needs.PAIRED)
    three = opened(tmp_path, domain_column="modality", domains=("t1c", "flair", "t2"))
    with pytest.raises(UsageError, match="3 domains"):
        made(three, Needs.DISEASED_AND_HEALTHY)
