"""A process of its own for the native decoders (OpenJPEG, CharLS, GDCM): if a hostile stream crashes them, we live on.

Run by ``dicom_decode`` as a script, without importing healmap. Standard input carries questions, standard output answers; both
are a length (two big-endian 32-bit numbers: JSON, bytes), a JSON object and raw bytes.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

MEMORY = 6 * 1024**3  # address space; the largest allowed frame needs about 1 GiB, libraries reserve some more


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message, or None when the other side has gone."""
    head = _exactly(stream, 8)
    if head is None:
        return None
    first, second = struct.unpack(">II", head)
    text, data = _exactly(stream, first), _exactly(stream, second)
    return None if text is None or data is None else (json.loads(text), data)


def write_message(stream: BinaryIO, value: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(value).encode()
    stream.write(struct.pack(">II", len(text), len(data)))
    stream.write(text)
    stream.write(data)
    stream.flush()


def _exactly(stream: BinaryIO, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def decode(plugin: str, options: dict[str, Any], source: bytes) -> tuple[dict[str, Any], bytes]:
    """One frame: the changed options (container size, colour space, ...) and the decoded bytes."""
    from pydicom.pixels.decoders.base import DecodeRunner
    from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

    syntax = UID(options["transfer_syntax_uid"])
    if plugin == "gdcm" and syntax == JPEGExtended12Bit:
        syntax = JPEGBaseline8Bit  # GDCM goes by the stream; pydicom refuses 12 bits only for the other name
    runner = DecodeRunner(syntax)
    for name, value in options.items():
        if name != "transfer_syntax_uid":
            runner.set_option(name, value)
    frame = import_module(f"pydicom.pixels.decoders.{plugin}")._decode_frame(source, runner)
    changed = {
        name: value for name, value in runner.options.items() if name != "transfer_syntax_uid" and options.get(name) != value
    }
    return changed, bytes(frame)


def main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    sys.modules["dl"] = None  # type: ignore[assignment]   # python-gdcm tries "import dl"; a folder of that name must not answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # native libraries print; that must not mix with the answers
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
    while (message := read_message(sys.stdin.buffer)) is not None:
        question, source = message
        try:
            if "options" not in question:  # a greeting: import what the first frame needs
                import_module(f"pydicom.pixels.decoders.{question['plugin']}")
                write_message(answers, {})
                continue
            changed, frame = decode(question["plugin"], question["options"], source)
            write_message(answers, {"options": changed}, frame)
        except Exception as error:  # whatever it was, the answer is: this frame cannot be decoded
            write_message(answers, {"fault": f"{type(error).__name__}: {error}"[:300]})


if __name__ == "__main__":
    main()
