"""Training with attributes and translating, as a user does it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image as Pil

from healmap.cli.main import main
from healmap.data.phantoms import make_phantoms

TINY = ["method.width=4", "method.blocks=1", "method.critic_width=4", "method.critic_layers=3", "data.batch_size=4"]
HAIR = "black_hair,blond_hair,brown_hair"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms that pretend to be people: three hair colours, of which each has one, and two more attributes."""
    folder = tmp_path_factory.mktemp("faces")
    make_phantoms(folder, patients=8, size=32, seed=0)
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):
        row |= {name: str(int(k % 3 == i)) for i, name in enumerate(HAIR.split(","))}
        row |= {"male": str(k % 2), "young": str(k // 2 % 2)}
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    data = ["data.domain_column=attributes", f"data.attributes={HAIR},male,young", f"data.exclusive={HAIR}"]
    settings = [*TINY, *data, "method.n_critic=2"]
    command = ["train", "stargan", "--data", str(faces), "--out", str(out), "--size", "32", "--steps", "4", "--quiet"]
    assert main([*command, "--set", *settings]) == 0
    return out


def test_to_attributes(run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(run), "--to", "black_hair,male", "-i", str(faces), "-o", str(tmp_path / "out")]) == 0
    assert "0 failed" in capsys.readouterr().out
    with open(tmp_path / "out" / "translations.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["to"] for row in table} == {"black_hair,male"}
    for row in table:
        assert (tmp_path / "out" / row["file"]).is_file()
    # Input, the image's own domain, and every attribute: seven columns and the space for names.
    assert Pil.open(tmp_path / "out" / "grid.png").width == 96 + 7 * (128 + 4)


@pytest.mark.parametrize(
    ("to", "says"),
    [("grey_hair", "no domain 'grey_hair'"), (f"{HAIR}", "exclude each other")],
)
def test_what_is_no_target(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, says: str
) -> None:
    assert main(["translate", str(run), "--to", to, "-i", str(faces), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_folders_by_name(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A -> B between folders that have nothing to do with health."""
    images = sorted((faces / "images").glob("*.png"))
    for k, name in enumerate(("A", "B")):
        (tmp_path / "sets" / "train" / name).mkdir(parents=True)
        for image in images[k * 8 : k * 8 + 8]:
            (tmp_path / "sets" / "train" / name / image.name).write_bytes(image.read_bytes())
    settings = [*TINY, "method.critic_layers=2", "data.domain_column=folder", "data.domains=B,A"]
    command = ["train", "cyclegan", "--data", str(tmp_path / "sets"), "--out", str(tmp_path / "run"), "--size", "32"]
    assert main([*command, "--steps", "2", "--quiet", "--set", *settings]) == 0
    source = str(tmp_path / "sets" / "train" / "A")
    assert main(["translate", str(tmp_path / "run"), "--to", "B", "-i", source, "-o", str(tmp_path / "out")]) == 0
    assert "8 images translated, 0 failed" in capsys.readouterr().out
