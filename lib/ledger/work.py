"""What was done and what it took: receipts and mishaps, added up over one driver or over all.

These are for rates and costs. What a run holds is told by its commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from lib.receipts import ShardReport

_HOUR_S = 3600.0


@dataclass(slots=True)
class Work:
    """Sums. Shares are None where nothing tells."""

    shards: int = 0
    """Committed; a shard that two workers brought to its end counts once."""
    images: int = 0
    errors: int = 0
    edits: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    read_s: float = 0.0
    model_s: float = 0.0
    """In which shards held the model."""
    wait_s: float = 0.0
    """Of `model_s`, in which the model waited: for decoded images, or for encoders far behind."""
    idle_s: float = 0.0
    """In which the model stood free between two shards."""
    write_s: float = 0.0
    ready_s: float = 0.0
    """For which workers stood ready; of those still at work, up to their last receipt."""
    held_s: float = 0.0
    """For which workers were there, also while they loaded the model."""
    gpu_held_s: float = 0.0
    """The same times the GPUs of a worker."""
    wall_s: float = 0.0
    """Of drivers, from start to end."""
    attempts: int = 0
    """Shards begun."""
    again: int = 0
    """Of these, shards begun before, after the attempt before had ended."""
    doubled: int = 0
    """Of these, shards that another worker still had in hand: stragglers, done twice on purpose."""
    cancelled: int = 0
    """Of these, shards stopped on the driver's order."""
    lost: int = 0
    """Of these, shards that ended with their worker."""
    given_up: int = 0
    """Shards quarantined."""
    beaten: int = 0
    """Shards that another worker or driver had committed first."""
    smaller_batches: int = 0
    """Shards for which memory ran out, so that their batches were halved."""
    error_kinds: dict[str, int] = field(default_factory=dict)
    """Kind -> rows under errors/."""
    failures: dict[str, int] = field(default_factory=dict)
    """Verdict -> attempts that raised an error."""
    deaths: dict[str, int] = field(default_factory=dict)
    """Cause -> workers that ended before they were told to."""

    def add(self, report: ShardReport, *, counts: bool) -> None:
        """One receipt; `counts` is False where another's result stands, so that this one only took
        time.
        """
        self.read_s += report.read_s
        self.model_s += report.model_s
        self.wait_s += report.wait_s
        self.idle_s += report.idle_s
        self.write_s += report.write_s
        self.bytes_in += report.bytes_in
        if not counts:
            self.beaten += 1
            return
        self.shards += 1
        self.images += report.n_in
        self.errors += report.n_err
        self.edits += report.n_edits
        self.bytes_out += report.bytes_out
        self.smaller_batches += report.oom_batch is not None
        for kind, count in report.error_kinds.items():
            self.error_kinds[kind] = self.error_kinds.get(kind, 0) + count

    @property
    def waited(self) -> float | None:
        """The share of its receipted time in which the model did nothing: GPU wait."""
        seconds = self.model_s + self.idle_s
        return (self.wait_s + self.idle_s) / seconds if seconds > 0 else None

    @property
    def busy_s(self) -> float:
        """In which models computed, for results that were receipted."""
        return max(0.0, self.model_s - self.wait_s)

    @property
    def utilisation(self) -> float | None:
        """The share of the time of ready workers in which their models computed what was kept:
        waits, work done for nothing and the end of a run, when some have no shard left, count
        against it.
        """
        return min(1.0, self.busy_s / self.ready_s) if self.ready_s > 0 else None

    @property
    def images_per_s(self) -> float | None:
        """Of all workers together."""
        return self.images / self.wall_s if self.wall_s > 0 else None

    @property
    def gpu_hours(self) -> float:
        """For which GPUs were held."""
        return self.gpu_held_s / _HOUR_S

    @property
    def worker_hours(self) -> float:
        """For which workers were there."""
        return self.held_s / _HOUR_S


def total(works: Iterable[Work]) -> Work:
    """All of them together."""
    summed = Work()
    for work in works:
        for each in fields(Work):
            value = getattr(work, each.name)
            if isinstance(value, Mapping):
                counts = getattr(summed, each.name)
                for key, count in value.items():
                    counts[key] = counts.get(key, 0) + count
            else:
                setattr(summed, each.name, getattr(summed, each.name) + value)
    return summed
