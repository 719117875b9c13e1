"""Bombs and giants are refused quickly and cheaply, and the process lives on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make
from hostile import BOMBS

from healmap.errors import TooLargeError, UnreadableError
from healmap.io import Limits, read_image

HOSTILE = Path(__file__).with_name("hostile.py")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """All bombs read by one process, which therefore survives each of them; ``mb`` is its peak so far, over idle."""
    folder = tmp_path_factory.mktemp("bombs")
    for task in ("make", "read"):
        done = subprocess.run([sys.executable, str(HOSTILE), task, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_quickly_and_cheaply(name: str, reports: dict) -> None:
    report = reports[name]
    print(name, report)
    assert report["outcome"] in ("TooLargeError", "UnreadableError")
    assert report["seconds"] < 2
    assert report["mb"] < 300


def test_listing_a_folder_of_bombs_is_cheap(reports: dict) -> None:
    assert reports["the whole folder listed"]["mb"] < 300


def test_what_is_refused_by_default_is_read_on_request(tmp_path: Path) -> None:
    path = make(tmp_path / "a.dcm", np.zeros((64, 65), np.uint16))
    for limits in (Limits(pixels=64 * 64), Limits(voxels=64 * 64), Limits(file_bytes=8000)):
        with pytest.raises(TooLargeError):
            read_image(path, limits)
    assert read_image(path, Limits(pixels=64 * 65)).shape == (64, 65)


MAGIC = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"\x1f\x8b", b"\x5c\x01\0\0", bytes(128) + b"DICM"]
STUMPS = [b"", b"\0", b"hello", *MAGIC, b"\x08\0\x05\0CS\0\0"]


@pytest.mark.parametrize("content", STUMPS)
def test_stumps_are_typed_errors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnreadableError):
        read_image(tmp_path / "a")


def test_what_is_no_file_is_a_typed_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", "absent", "a\0b", "\udcff", "new\nline"):
        with pytest.raises(UnreadableError) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableError, match="no DICOM image"):
        read_image(tmp_path)


def test_a_dead_decoder_is_started_again(tmp_path: Path) -> None:
    from healmap.io import dicom_decode

    path = make(tmp_path / "a.dcm", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), "jpeg-2000")
    expected = read_image(path).array
    dicom_decode._worker()._process.kill()
    dicom_decode._worker()._process.wait()
    np.testing.assert_array_equal(read_image(path).array, expected)


def test_an_interrupted_question_is_not_answered_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next image would get the pixels of the one before."""
    from healmap.io import decoder_worker

    paths = [make(tmp_path / f"{k}.dcm", np.full((64, 64), k, np.uint16), "jpeg-ls") for k in range(3)]
    assert read_image(paths[0]).array.max() == 0
    original = decoder_worker.read_message

    def interrupted(stream):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder_worker, "read_message", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_image(paths[1])
    monkeypatch.setattr(decoder_worker, "read_message", original)
    assert read_image(paths[2]).array.max() == 2


def test_a_decoder_that_crashes_or_hangs_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from healmap.io import decoder_worker, dicom_decode

    path = make(tmp_path / "a.dcm", np.zeros((64, 64), np.uint16), "jpeg-2000")
    script, source = tmp_path / "worker.py", Path(decoder_worker.__file__).read_text()
    for fault, words in (("os.kill(os.getpid(), 11)", "crashed"), ("import time; time.sleep(60)", "did not finish")):
        script.write_text(source.replace("    syntax = UID(", f"    {fault}\n    syntax = UID("))
        worker = dicom_decode.Worker()
        monkeypatch.setattr(dicom_decode.decoder_worker, "__file__", str(script))
        monkeypatch.setattr(dicom_decode, "_worker", lambda worker=worker: worker)
        ask = worker.ask
        monkeypatch.setattr(worker, "ask", lambda *args, ask=ask, **kw: ask(*args, seconds=0.4))
        with pytest.raises(UnreadableError, match=words):
            read_image(path)
        worker.stop()


def test_a_folder_called_dl_does_not_break_the_decoders(shared: Path, tmp_path: Path) -> None:
    """python-gdcm tries ``import dl``; a folder of that name in the working directory answers, and pydicom fails to import."""
    (tmp_path / "dl").mkdir()
    path = shared / "dicom_samples/single/SC_rgb_jpeg_gdcm.dcm"
    program = (
        f"import sys; sys.path.insert(0, ''); from healmap.io import read_image; print(read_image({str(path)!r}).array.max())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "255", done.stderr
    broken = subprocess.run([sys.executable, "-c", "import pydicom.pixels"], capture_output=True, text=True, cwd=tmp_path)
    assert "RTLD_NOW" in broken.stderr or broken.returncode == 0  # the trap is still there, or mended by its authors


def test_nothing_of_the_patient_is_shown(tmp_path: Path) -> None:
    """pydicom warns and logs with the values it finds fault with."""
    from dicom_files import dataset, save

    ds = dataset(np.zeros((4, 4), np.uint16))
    ds.add_new(0x00100010, "PN", "Canary^Name")
    path = save(tmp_path / "a.dcm", ds)
    data = path.read_bytes()
    for old, new in ((b"Canary^Patient", b"Canary\\\\=\\=^x"), (b"1.2.840.10008.5.1.4.1.1.2\0", b"Canary.10008.5.1.4.1.1.2\0")):
        data = data.replace(old, new)
    rows = data.index(b"\x28\0\x10\0US")
    for name, content in (("b", data), ("c", data[:rows] + b"\x28\0\x08\0IS\x06\0Canary" + data[rows:]), ("d", data[:-9])):
        (tmp_path / name).write_bytes(content)
        program = (
            f"import logging; logging.basicConfig(level=0); import healmap.io as io; io.read_image({str(tmp_path / name)!r})"
        )
        done = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, text=True)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        assert "Canary" not in done.stderr, done.stderr
        assert not last or "healmap.errors" in last
