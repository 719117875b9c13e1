"""Hashes of file contents, remembered so that gigabytes are not read again at every start.

A hash is believed as long as the file's path, size, and times of writing and of change are those it was made at. The memory
holds no names: paths are kept as hashes themselves. Losing it, or a broken one, costs time only.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..io.hashing import sha256_file

# A file written a moment ago may be written again within the clock's grain and look the same: its hash is not kept.
SETTLED_SECONDS = 2.0


class Hashes:
    """A context: ``with Hashes(folder) as hashes: hashes.of(path)``. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._lock, self._fresh = threading.Lock(), list[tuple[bytes, str, str]]()
        self._database: sqlite3.Connection | None = None
        with suppress(sqlite3.Error, OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            database = sqlite3.connect(folder / "hashes.sqlite", timeout=5, check_same_thread=False)
            database.execute("CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, state TEXT, sha TEXT)")
            self._database = database

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", self._fresh)
                self._database.close()

    def of(self, path: Path) -> str:
        """SHA-256 of the file's content.

        Raises:
            OSError: the file cannot be read.
        """
        status, began = os.stat(path), time.time()
        name = hashlib.sha256(os.fsencode(path.absolute())).digest()
        state = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        known = self._look_up(name)
        if known and known[0] == state:
            return known[1]
        sha = sha256_file(path)
        if began - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
            with self._lock:
                self._fresh.append((name, state, sha))
        return sha

    def _look_up(self, name: bytes) -> tuple[str, str] | None:
        with self._lock, suppress(sqlite3.Error):
            if self._database is not None:
                return self._database.execute("SELECT state, sha FROM hashes WHERE path = ?", (name,)).fetchone()
        return None
