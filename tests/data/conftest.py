"""Small data sets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from healmap.data.phantoms import make_phantoms
from healmap.data.table import Table


def write_png(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(np.asarray(array)).save(path)
    return path


def noise(seed: int, shape: tuple[int, ...] = (20, 24)) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """20 patients at 32 px; not to be changed by a test."""
    return make_phantoms(tmp_path_factory.mktemp("phantoms") / "set", patients=20, size=32, seed=1)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A labels.csv with one fault of every kind; the folder is its parent."""
    write_png(tmp_path / "good.png", noise(0))
    write_png(tmp_path / "sick.png", noise(1))
    write_png(tmp_path / "mask.png", np.eye(20, 24, dtype=np.uint8) * 255)
    write_png(tmp_path / "small_mask.png", np.ones((5, 5), np.uint8))
    write_png(tmp_path / "marked.png", noise(2))
    write_png(tmp_path / "copy.png", noise(0))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Pil.fromarray(np.full((6, 6), np.nan, np.float32)).save(tmp_path / "nan.tif")
    rows = [
        "path,label,patient_id,split,mask,box,age",
        "good.png,healthy,p1,train,,,50",
        "sick.png,diseased,p2,train,mask.png,,51",
        "gone.png,healthy,p3,train,,,52",
        "good.png,healthy,p1,train,,,50",
        "sick.png,healthy,p2,train,,,51",
        "cut.png,healthy,p4,train,,,53",
        "nan.tif,healthy,p5,val,,,54",
        "copy.png,healthy,p1,test,,,55",
        "marked.png,ill,p6,training,small_mask.png,,56",
        'marked.png,diseased,p6,,gone_mask.png,"1,2,3",57',
    ]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(rows))
    return path
