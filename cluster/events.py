"""What happened in a driver run, as JSON lines: `events/<start>-<host>-<pid>.jsonl`.

Each driver writes a file of its own, replaced whole every 30 s and at the end, because objects in a
store cannot be appended to. A full file is closed and another begun, so memory stays bounded.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunFolder

PATIENCE_S = 10.0
"""A driver has workers to see to: what it can also write or look up later waits no longer."""

_MAX_FILE_BYTES = 1_000_000
"""So that half of it, on average, is written every 30 s: some 1,500 shards."""
_SUFFIX = ".jsonl"
_NAMED = 3


class EventLog:
    """Collects the events of a driver called `name` and writes them when told to."""

    def __init__(self, folder: RunFolder, name: str) -> None:
        self._name = name
        self._folder = folder
        self._part = 0
        self._lines: list[str] = []
        self._bytes = 0
        self._full: list[tuple[int, list[str]]] = []
        """Files that are full but not written yet."""
        self._dirty = False

    def add(self, event: str, **fields: object) -> None:
        """Record `event` with its time (UTC) and fields; dataclasses become objects."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **fields}, default=_plain)
        self._lines.append(storage.redact(line))
        self._bytes += len(line) + 1
        self._dirty = True
        if self._bytes > _MAX_FILE_BYTES:
            self._full.append((self._part, self._lines))
            self._part += 1
            self._lines, self._bytes, self._dirty = [], 0, False

    def flush(self) -> None:
        """Write what is not written yet; OSError where the store refuses, and it is kept."""
        while self._full:
            self._write(*self._full[0])
            self._full.pop(0)
        if self._dirty:
            self._write(self._part, self._lines)
            self._dirty = False

    def _write(self, part: int, lines: list[str]) -> None:
        url = self._folder.url("events", f"{self._name}{f'.{part}' if part else ''}{_SUFFIX}")
        storage.replace(url, "".join(f"{line}\n" for line in lines).encode())


def read_events(
    folder: RunFolder, notice: Callable[[str], None] = lambda sentence: None
) -> Iterator[dict[str, Any]]:
    """All events of all drivers, each driver's in their order, drivers in the order they began.

    What is no event, such as a torn or a foreign line, is left out and told to `notice`.
    """
    for name in sorted(_names(folder), key=_order):
        yield from _read_file(folder, name, notice)


def last_events(
    folder: RunFolder, most: int, notice: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The latest events of all drivers together, the oldest first; reads two files a driver."""
    newest: dict[str, list[str]] = {}
    for name in sorted(_names(folder), key=_order):
        newest.setdefault(_order(name)[0], []).append(name)
    latest: deque[dict[str, Any]] = deque(maxlen=most)
    found = (
        e for names in newest.values() for n in names[-2:] for e in _read_file(folder, n, notice)
    )
    latest.extend(sorted(found, key=lambda event: str(event["time"])))
    return list(latest)


def _names(folder: RunFolder) -> list[str]:
    return [n for n in storage.list_names(folder.url("events")) if n.endswith(_SUFFIX)]


def _order(name: str) -> tuple[str, int]:
    """A driver's name and the number of the file."""
    stem = name.removesuffix(_SUFFIX)
    driver, _, part = stem.rpartition(".")
    return (driver, int(part)) if driver and part.isdecimal() else (stem, 0)


def _read_file(
    folder: RunFolder, name: str, notice: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    try:
        data = storage.read_bytes(folder.url("events", name))
    except FileNotFoundError:  # deleted after it was listed
        return
    wrong: list[int] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            event = json.loads(line)
        except ValueError:  # bytes that are no text, too
            event = None
        if isinstance(event, dict) and {"time", "event"} <= event.keys():
            yield event
        else:
            wrong.append(number)
    if wrong:
        some = ", ".join(str(number) for number in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        notice(f"events/{name} has lines that are no events: {some}{more}")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be an event field")
