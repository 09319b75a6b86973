"""What a run took, added up from the records of its drivers."""

from __future__ import annotations

from dataclasses import dataclass

from lib.ledger.driver_record import read_drivers
from lib.ledger.run_folder import RunFolder
from lib.ledger.work import total


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over all drivers; attempts whose result another one committed first count as time."""

    drivers: int
    engine: str
    workers: int
    """Most of one driver."""
    shards: int
    images: int
    wall_s: float
    """Of every driver from start to end, added up."""
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
    """What the drivers say, None without any finished shard; and what could not be read."""
    try:
        records, notices = read_drivers(folder)
    except OSError as error:
        return None, [f"drivers/ cannot be read: {error}"]
    work = total(record.work for record in records)
    if not work.shards:
        return None, notices
    cost = Cost(
        drivers=len(records),
        engine=records[-1].engine,
        workers=max(record.workers for record in records),
        shards=work.shards,
        images=work.images,
        wall_s=work.wall_s,
        model_s=work.model_s,
        read_s=work.read_s,
        write_s=work.write_s,
    )
    return cost, notices
