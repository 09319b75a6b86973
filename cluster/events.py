"""What happened in a driver run, as JSON lines: `events/<start>-<pid>.jsonl` in the run folder.

Each driver writes a file of its own, replaced whole every 30 s and at the end, because objects in a
store cannot be appended to. A full file is closed and another begun, so memory stays bounded.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunFolder

PATIENCE_S = 10.0
"""A driver has workers to see to: what it can also write or look up later waits no longer."""

_INTERVAL_S = 30.0
_MAX_FILE_BYTES = 4_000_000
_log = logging.getLogger(__name__)


class EventLog:
    """Collects events and writes them; `tick` and `flush` raise OSError where the store refuses."""

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

    def tick(self, now: float) -> None:
        """Write if it is time; `now` is a monotonic clock in seconds. What a store that is down for
        a while does not take stays in memory until the next time.
        """
        if now - self._written_at < _INTERVAL_S:
            return
        self._written_at = now
        try:
            with storage.patience(PATIENCE_S):
                self.flush()
        except storage.StoreUnavailableError as error:
            _log.warning("%s; the events are kept and written later", error)

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._dirty and self._lines:
            part = f"_{self._part:03d}" if self._part else ""  # sorts behind the first, `….jsonl`
            url = self._folder.url("events", f"{self._stem}{part}.jsonl")
            storage.replace(url, "".join(f"{line}\n" for line in self._lines).encode())
        self._dirty = False
        if self._bytes > _MAX_FILE_BYTES:
            self._part += 1
            self._lines, self._bytes = [], 0


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
