"""What a run took, added up from the events of its drivers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunFolder

_MAX_FILES = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over all drivers; attempts whose result another one committed first count too."""

    drivers: int
    engine: str
    workers: int
    """Most of one driver."""
    shards: int
    images: int
    wall_s: float
    """Between the first and the last event of every driver, added up."""
    model_s: float
    """In which a worker held the model: seconds of its device."""
    read_s: float
    write_s: float

    @property
    def images_per_s(self) -> float:
        """Of all workers together."""
        return self.images / self.wall_s if self.wall_s > 0 else float("nan")

    @property
    def model_s_per_image(self) -> float:
        """Seconds of a device."""
        return self.model_s / self.images if self.images else float("nan")


def read_cost(folder: RunFolder) -> tuple[Cost | None, list[str]]:
    """What the events say, None without any finished shard; and what could not be read."""
    files: dict[str, list[Mapping[str, Any]]] = {}
    notices = []
    for name in storage.list_names(folder.url("events"))[:_MAX_FILES]:
        if not name.endswith(".jsonl"):
            continue
        stem = name.removesuffix(".jsonl")
        first, _, part = stem.rpartition(".")  # a driver with many events has several files
        stem = first if part.isdigit() else stem
        try:
            text = storage.read_bytes(folder.url("events", name)).decode()
            files.setdefault(stem, []).extend(json.loads(line) for line in text.splitlines())
        except (OSError, ValueError) as error:
            notices.append(f"events/{name} cannot be read: {storage.redact(str(error))}")
    try:
        return _added(list(files.values())), notices
    except (KeyError, TypeError, ValueError) as error:
        return None, [*notices, f"events/ is not as this release writes it: {error!r}"]


def _added(drivers: list[list[Mapping[str, Any]]]) -> Cost | None:
    started = [e for events in drivers for e in events if e["event"] == "run_started"]
    reports = [e["report"] for events in drivers for e in events if e["event"] == "shard_done"]
    if not reports:
        return None
    wall_s = 0.0
    for events in drivers:
        times = [datetime.fromisoformat(event["time"]) for event in events]
        if times:  # the files of a driver are not in their order
            wall_s += (max(times) - min(times)).total_seconds()
    return Cost(
        drivers=len(drivers),
        engine=str(started[-1]["engine"]) if started else "",
        workers=max((int(e["workers"]) for e in started), default=0),
        shards=len(reports),
        images=sum(int(report["n_in"]) for report in reports),
        wall_s=wall_s,
        model_s=sum(float(report["model_s"]) for report in reports),
        read_s=sum(float(report["read_s"]) for report in reports),
        write_s=sum(float(report["write_s"]) for report in reports),
    )
