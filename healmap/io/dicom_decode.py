"""Compressed DICOM frames: which decoder, checks of the stream before it runs, and the process it runs in.

Registered with pydicom as a decoding plugin, so that pydicom keeps doing what it does well (fragments, byte order, colour).
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DecoderMissingError, HealError, TooLargeError, UnreadableError
from . import decoder_worker

PLUGIN = "healmap"
BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
OURS = (BASELINE, EXTENDED, *LOSSLESS, *JPEG_LS, *JPEG_2000, *HTJ2K)

_PACKAGES = {
    "pillow": ("Pillow", "pip install pillow"),
    "gdcm": ("python-gdcm", 'install the extra: pip install "healmap[gdcm]"'),
    "pyjpegls": ("pyjpegls", "pip install pyjpegls"),
    "pylibjpeg": ("pylibjpeg-openjpeg", "pip install pylibjpeg pylibjpeg-openjpeg"),
}
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys(OURS, ())  # pydicom's plugin protocol
START = 60.0  # seconds for the decoding process to start
_state = threading.local()


def is_available(uid: str) -> bool:
    """pydicom's plugin protocol. A missing package is reported when a frame needs it."""
    return uid in OURS


def register() -> None:
    """Makes the plugin known to pydicom; again and again is fine."""
    from pydicom.pixels import get_decoder

    for syntax in OURS:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "_decode_frame"))


def choose(syntax: str, bits_stored: int) -> str:
    """The name of pydicom's plugin for a transfer syntax. GDCM only where nothing else of permissive licence exists."""
    if syntax == BASELINE or (syntax == EXTENDED and bits_stored == 8):
        return "pillow"
    if syntax in (EXTENDED, *LOSSLESS):
        return "gdcm"
    return "pyjpegls" if syntax in JPEG_LS else "pylibjpeg"


def require(syntax: Any, bits_stored: int, path: Path) -> None:
    """Raises DecoderMissingError, naming the package, if frames of this syntax cannot be decoded here."""
    from importlib import import_module

    plugin = choose(syntax, bits_stored)
    if not import_module(f"pydicom.pixels.decoders.{plugin}").is_available(syntax):
        package, remedy = _PACKAGES[plugin]
        raise DecoderMissingError(f"{syntax.name} needs the package {package}", where=str(path), hint=remedy)


def fault() -> HealError | None:
    """What went wrong in the last decoding of this thread, once: pydicom swallows the exceptions of its plugins."""
    error, _state.fault = getattr(_state, "fault", None), None
    return error


def _decode_frame(source: bytes, runner: Any) -> bytes | bytearray:
    try:
        check_stream(source, runner.transfer_syntax, runner.rows, runner.columns, runner.samples_per_pixel)
        plugin = choose(runner.transfer_syntax, runner.bits_stored)
        if plugin == "pillow":
            from pydicom.pixels.decoders import pillow

            return pillow._decode_frame(source, runner)
        options = {name: value for name, value in runner.options.items() if isinstance(value, str | int | float | bool)}
        changed, frame = _worker().ask(plugin, options, bytes(source), seconds=3 + runner.rows * runner.columns / 5e5)
        for name, value in changed.items():
            runner.set_option(name, value)
        return bytearray(frame)
    except HealError as error:
        _state.fault = error
        raise


# --- the stream's own header ---------------------------------------------------------------------------------------------


def check_stream(source: bytes, syntax: str, rows: int, columns: int, samples: int) -> None:
    """Compares what a compressed frame says about itself with the DICOM header, before a decoder takes memory for it."""
    size = _j2k_size(source) if syntax in (*JPEG_2000, *HTJ2K) else _jpeg_size(source, syntax)
    if size is None:
        raise UnreadableError("a compressed frame is damaged", hint="its header is missing or cut short")
    if size != (rows, columns, samples):
        said, wanted = (f"{h} x {w} x {n}" for h, w, n in (size, (rows, columns, samples)))
        raise UnreadableError(f"a compressed frame of {said} in an image of {wanted}", hint="header and pixels contradict")


def _j2k_size(source: bytes) -> tuple[int, int, int] | None:
    start = source.find(b"\xff\x4f\xff\x51", 0, 4096)  # bare code stream, or inside the boxes of a JP2 file
    if start < 0 or len(source) < start + 42:
        return None
    x1, y1, x0, y0 = struct.unpack(">4I", source[start + 8 : start + 24])
    return y1 - y0, x1 - x0, struct.unpack(">H", source[start + 40 : start + 42])[0]


def _jpeg_size(source: bytes, syntax: str) -> tuple[int, int, int] | None:
    size = None
    for marker, body in _segments(source):
        if marker in _FRAME_MARKERS and len(body) >= 6 and size is None:
            height, width, components = struct.unpack(">HHB", body[1:6])
            size, frame = (height, width, components), marker
        if marker == 0xDA:
            if size is None:
                return None
            # T.81, table B.3: a sequential scan covers all coefficients at full precision.
            if frame in (0xC0, 0xC1) and body[-3:] != b"\x00\x3f\x00":
                raise UnreadableError("the JPEG stream is flawed", hint="its scan header contradicts its frame header")
            return size
    return None


_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}


def _segments(source: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) up to the first scan."""
    at = 2
    if source[:2] != b"\xff\xd8":
        return
    while at + 4 <= len(source) and source[at] == 0xFF:
        marker = source[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        length = int.from_bytes(source[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, bytes(source[at + 4 : at + 2 + length])
        if marker == 0xDA:
            return
        at += 2 + length


# --- the process ---------------------------------------------------------------------------------------------------------


class Worker:
    """One decoding process; it is started when first asked and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def ask(self, plugin: str, options: dict[str, Any], source: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The changed options and the decoded frame.

        Raises:
            UnreadableError: the decoder refused the frame, crashed, or took longer than ``seconds``; TooLargeError: no memory.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
                self._exchange({"plugin": plugin}, b"", START)  # imports; not on the frame's account
            reply, frame = self._exchange({"plugin": plugin, "options": options}, source, seconds)
        if "fault" in reply:
            if reply["fault"].startswith("MemoryError"):
                raise TooLargeError("the decoder ran out of memory on a compressed frame")
            raise UnreadableError("a compressed frame cannot be decoded", hint=f"{plugin} says {reply['fault']}")
        return reply["options"], frame

    def _exchange(self, question: dict[str, Any], source: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        process, late = self._process, threading.Event()
        assert process is not None

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        answer = None
        try:
            decoder_worker.write_message(process.stdin, question, source)  # type: ignore[arg-type]
            answer = decoder_worker.read_message(process.stdout)  # type: ignore[arg-type]
        except OSError:  # the pipe is broken: it died
            pass
        finally:
            timer.cancel()
            if answer is None:  # also when interrupted: a late answer must never be taken for that to the next question
                self.stop()
        if answer is None:
            what = f"the decoder did not finish within {seconds:.0f} s" if late.is_set() else "the decoder crashed"
            raise UnreadableError(what, hint="the compressed frame is damaged")
        return answer

    def stop(self) -> None:
        if self._process is not None and self._owner == os.getpid():  # a forked child leaves its parent's process alone
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                try:
                    if stream is not None:
                        stream.close()
                except OSError:  # unsent bytes for a dead process
                    pass
            self._process = None

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        try:
            here = os.path.realpath(os.getcwd())
        except OSError:  # the working folder was removed
            here = ""
        paths = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-I", decoder_worker.__file__, json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )


_the_worker: Worker | None = None
_starting = threading.Lock()


def _worker() -> Worker:
    global _the_worker
    with _starting:
        if _the_worker is None:
            _the_worker = Worker()
            atexit.register(_the_worker.stop)
        return _the_worker


def _forget() -> None:
    """A forked child must not share its parent's pipes."""
    global _the_worker, _starting
    _the_worker, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
