"""How a run stands, by what lies in its folder: counts from commits, rates from its drivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lib.ledger.commit_totals import CommitTotals
from lib.ledger.driver_record import DriverRecord, read_drivers
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, RunIndex, covers, not_learned, read_index
from lib.ledger.snapshot import Snapshot
from lib.ledger.summary import Summary, counted
from lib.ledger.work import Work, total

QUICK_COMMITS = 2000
"""At most so many footers are read unasked: each is one small read."""

Source = Literal["commits", "index.json", "receipts"]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run at one moment."""

    at: datetime
    summary: Summary
    source: Source
    """Of all numbers of the summary but the shards', which are always the listings'."""
    finalized: bool
    """index.json speaks of just these commits."""
    learned_directions: int
    """From all images, by finalize."""
    learned: tuple[str, ...]
    """What finalize learned from all images, and what it could not, in sentences."""
    work: Work
    """Of all drivers."""
    drivers: tuple[DriverRecord, ...]
    images_per_s: float
    """Of the living drivers."""
    left_s: float | None
    """Seconds until all shards have ended at that rate; None where nothing tells."""
    notices: tuple[str, ...]
    """What could not be read."""

    @property
    def living(self) -> tuple[DriverRecord, ...]:
        """The drivers that were heard of lately and have not ended."""
        return tuple(driver for driver in self.drivers if driver.alive(self.at))

    @property
    def over(self) -> bool:
        """Every shard has ended and the run is finalized."""
        return self.finalized and not self.summary.shards.pending

    def sentence(self) -> str:
        """Who works on it, and what to do."""
        again = "run the same command again"
        if self.over:
            return "finished"
        living = self.living
        if living:
            what = "finalizing" if not self.summary.shards.pending else "working"
            if any(driver.state == "draining" for driver in living):
                what = "stopping: finishing the shards in flight"
            many = "1 driver" if len(living) == 1 else f"{len(living)} drivers"
            return f"{what}, {many}"
        if not self.summary.shards.pending:
            return f"all shards have ended, but the run is not finalized: {again}"
        last = self.drivers[-1] if self.drivers else None
        if last is not None and last.state != "ended":
            return (
                f"nobody seems to work on it: the last driver, process {last.pid} on {last.host},"
                f" has been silent for {round(last.silent_s(self.at)):,} s and probably crashed;"
                f" {again} to go on"
            )
        return f"nobody works on it; {again} to go on"


class StatusReader:
    """Reads a run's status as often as it is asked; commits that it has read it does not read
    again.
    """

    def __init__(self, folder: RunFolder, *, deep: bool = False) -> None:
        """`deep`: read every commit's footer, however many there are."""
        self._folder = folder
        self._deep = deep
        self._totals = CommitTotals(folder)

    def read(self) -> RunStatus:
        """How the run stands now.

        Raises:
            OSError: the folder cannot be read.

        """
        snapshot = self._folder.snapshot()
        drivers, notices = read_drivers(self._folder)
        work = total(driver.work for driver in drivers)
        index = None
        if not snapshot.pending:  # before, there is none, or one of fewer shards
            try:
                index = read_index(self._folder)
            except ValueError as error:
                notices.append(str(error))
        finalized = index is not None and covers(index, snapshot)
        source = self._count(snapshot, index if finalized else None)
        found = counted(self._folder, snapshot, self._totals)
        if source == "receipts":
            found = _receipted(found, work)
        at = datetime.now(UTC)
        rate = sum(driver.images_per_s for driver in drivers if driver.alive(at))
        return RunStatus(
            at=at,
            summary=found,
            source=source,
            finalized=finalized,
            learned_directions=0 if index is None else _learned_rows(index),
            learned=() if index is None else tuple(_learned(index)),
            work=work,
            drivers=tuple(drivers),
            images_per_s=rate,
            left_s=_left_s(snapshot.counts.pending, work, rate),
            notices=tuple(notices),
        )

    def _count(self, snapshot: Snapshot, index: RunIndex | None) -> Source:
        unread = self._totals.unread(snapshot.committed)
        if self._deep or unread <= QUICK_COMMITS:
            self._totals.catch_up(snapshot.committed)
            return "commits"
        if index is not None:
            self._totals.take(index)
            return "index.json"
        return "receipts"


def _receipted(found: Summary, work: Work) -> Summary:
    """The shards as they are, the samples as the drivers counted them."""
    return Summary(
        shards=found.shards,
        samples_ok=work.images - work.errors,
        samples_err=work.errors,
        edits=work.edits,
        marked={},
        dropped={},
        directions=0,
        image_bytes=work.bytes_out,
        error_kinds=work.error_kinds,
        quarantined=found.quarantined,
        damaged=(),
    )


def _learned(index: RunIndex) -> list[str]:
    if not (index["merged"] or index["left_out"]):
        return []
    if any(file["name"] == "regions.safetensors" for file in index["merged"]):
        return ["regions of all images: see `deltah regions show`"]
    learned = (
        [] if LEARNED_REGIONS in index["left_out"] else [f"{_learned_rows(index):,} directions"]
    )
    return [*learned, *not_learned(index)]


def _learned_rows(index: RunIndex) -> int:
    return sum(file["rows"] for file in index["merged"])


def _left_s(pending: int, work: Work, rate: float) -> float | None:
    if not pending:
        return 0.0
    if not rate or not work.shards:
        return None
    return pending * work.images / work.shards / rate
