"""What happened in a driver run, as JSON lines: `events/<start>-<pid>.jsonl` in the run folder.

Each driver writes a file of its own, replaced whole every 30 s and at the end, because objects in a
store cannot be appended to. A full file is closed and another begun, so memory stays bounded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunFolder

_INTERVAL_S = 30.0
_MAX_FILE_BYTES = 4_000_000


class EventLog:
    """Collects events and writes them; OSError leaves `add` and `flush` where the store refuses."""

    def __init__(self, folder: RunFolder, now: float) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._stem = f"{start}-{socket.gethostname()}-{os.getpid()}"
        self._folder = folder
        self._part = 0
        self._lines: list[str] = []
        self._bytes = 0
        self._written_at = now
        self._dirty = False

    def add(self, event: str, **fields: object) -> None:
        """Record `event` with its time (UTC) and fields; dataclasses become objects."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **fields}, default=_plain)
        self._lines.append(storage.redact(line))
        self._bytes += len(line) + 1
        self._dirty = True
        if self._bytes > _MAX_FILE_BYTES:
            self.flush()
            self._part += 1
            self._lines, self._bytes = [], 0

    def tick(self, now: float) -> None:
        """Write if it is time; `now` is a monotonic clock in seconds."""
        if now - self._written_at >= _INTERVAL_S:
            self._written_at = now
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._dirty and self._lines:
            part = f".{self._part}" if self._part else ""
            url = self._folder.url("events", f"{self._stem}{part}.jsonl")
            storage.replace(url, "".join(f"{line}\n" for line in self._lines).encode())
        self._dirty = False


def read_events(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """All events of all drivers, file by file in the order they began."""
    for name in storage.list_names(folder.url("events")):
        if not name.endswith(".jsonl"):
            continue
        for line in storage.read_bytes(folder.url("events", name)).decode().splitlines():
            yield json.loads(line)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be an event field")
