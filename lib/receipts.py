"""The small records that cross process borders: the order for a shard, its receipt, and a sample's
failure.

Nothing here imports torch, so the driver, `plan` and `status` stay light.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The order to process one input shard."""

    shard: str
    """The shard's name: the file name without `.tar`; unique in a run."""
    url: str
    attempt: int
    """1 for the first started attempt."""
    duplicate: bool = False
    """Another worker has it in hand: who is second to finish changes nothing."""


class ShardCancelled(Exception):
    """A worker stopped a shard because it was told to: nothing of it is committed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One sample (or, without an index, one stretch of a damaged shard) that could not be done."""

    shard: str
    index: int | None
    key: str | None
    stage: str
    """read, decode, invert, segment, discover, observe, edit or encode."""
    kind: str
    """A stable word for counting, such as `not_an_image`."""
    message: str


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a worker says of one shard it has brought to a committed state."""

    shard: str
    attempt: int
    outcome: Literal["committed", "lost_race"]
    """lost_race: another writer committed this shard first; nothing of ours counts."""
    n_in: int
    n_ok: int
    n_err: int
    n_edits: int
    bytes_in: int
    bytes_out: int
    read_s: float
    """GET, untar and decode of the first batch."""
    model_s: float
    """Seconds in which this shard held the model."""
    wait_s: float
    """Seconds in which the model was held but waited: for decoded images, or for encoders that were
    too far behind.
    """
    write_s: float
    """Encoding what was left, tar, PUT and commit."""
    host: str
    n_directions: int = 0
    """Found in this shard."""
    idle_s: float = 0.0
    """Seconds in which the model stood free before this shard took it: since the worker was ready,
    or since the shard before let go of it.
    """
    oom_batch: int | None = None
    """No batch was larger, because memory ran out; None when the configured ones were used."""
    error_kinds: Mapping[str, int] = field(default_factory=dict)
    """Kind -> rows in the shard's errors file."""

    @property
    def wait_share(self) -> float:
        """The part of the model's time, from when it was free for this shard to when the shard let
        go of it, in which it did nothing.
        """
        time_s = self.model_s + self.idle_s
        return (self.wait_s + self.idle_s) / time_s if time_s else 0.0
