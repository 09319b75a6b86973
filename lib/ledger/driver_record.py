"""drivers/<name>.json: what one driver has done so far and when it last said so.

A driver replaces its own every INTERVAL_S, so that anyone can see from anywhere whether it lives
and how fast it goes, by one small read, and a crash loses no more than that.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.work import Work

DRIVER_VERSION: Final = 1
"""Raised whenever a field changes its meaning; new fields have defaults."""
INTERVAL_S = 30.0
_SILENT_INTERVALS = 2.5
_READERS = 16
_NAMED = 3
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """One driver run."""

    v: Literal[1]
    name: str
    """As its files under drivers/ and events/ begin."""
    host: str
    pid: int
    engine: str
    workers: int
    """Asked for."""
    gpus_per_worker: float
    started_at: datetime
    seen_at: datetime
    """When it wrote this, by its own clock."""
    state: Literal["working", "draining", "finalizing", "ended"]
    exit_code: int | None
    sentence: str
    """How it ended."""
    to_do: int
    """Shards when it began."""
    in_flight: int
    waiting: int
    ready_workers: int
    loading_workers: int
    images_per_s: float
    """Lately."""
    work: Work
    trouble: tuple[str, ...] = ()
    """The last few failures, with their times."""

    def silent_s(self, now: datetime) -> float:
        """Since it was last heard; `now` has a time zone."""
        return max(0.0, (now - self.seen_at).total_seconds())

    def alive(self, now: datetime) -> bool:
        """Whether it was heard of lately, and has not said that it ended."""
        return self.state != "ended" and self.silent_s(now) <= _SILENT_INTERVALS * INTERVAL_S


_RECORDS: TypeAdapter[DriverRecord] = TypeAdapter(DriverRecord)


def write_driver(folder: RunFolder, record: DriverRecord) -> None:
    """Replace a driver's record."""
    text = json.dumps(asdict(record), indent=1, default=_plain) + "\n"
    storage.replace(_url(folder, record.name), storage.redact(text).encode())


def read_drivers(folder: RunFolder) -> tuple[list[DriverRecord], list[str]]:
    """The record of every driver of the run in the order in which they began, and a sentence for
    what is none.
    """

    def read(name: str) -> DriverRecord | str | None:
        try:
            return _RECORDS.validate_json(storage.read_bytes(_url(folder, name)))
        except FileNotFoundError:  # deleted after it was listed
            return None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            return f"drivers/{name}{_SUFFIX} cannot be read: {place or 'JSON'}: {first['msg']}"

    listed = storage.list_names(folder.url("drivers"))
    names = [n.removesuffix(_SUFFIX) for n in listed if n.endswith(_SUFFIX)]
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(read, names))
    records = [each for each in found if isinstance(each, DriverRecord)]
    records.sort(key=lambda record: (record.started_at, record.name))
    notices = [each for each in found if isinstance(each, str)]
    if len(notices) > _NAMED:
        notices[_NAMED:] = [f"and {len(notices) - _NAMED} more files under drivers/"]
    return records, notices


def _url(folder: RunFolder, name: str) -> str:
    return folder.url("drivers", f"{name}{_SUFFIX}")


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    raise TypeError(f"{type(value).__name__} cannot be in a driver's record")
