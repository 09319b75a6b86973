"""How long a run takes at how many workers, from what an image costs: shards are the unit."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pipelines.image_cost import ImageCost

PREEMPTED_AN_HOUR = 0.05
"""Share of the workers that are preempted an hour, of which a plan speaks."""
_HOUR_S = 3600.0
FEW_SHARDS_A_WORKER = 2
_GOOD_SHARDS_A_WORKER = 10
"""The last shards then keep workers idle for at most an eleventh of the time."""
LONG_SHARD_S = 3600.0
_GOOD_SHARD_S = 1800.0


@dataclass(frozen=True, slots=True)
class AtWorkers:
    """A run at one number of workers."""

    workers: int
    wall_s: float
    """From the start of the first worker to the last commit; finalize comes after it."""
    held_h: float
    """Worker-hours, all workers held to the end."""
    efficiency: float
    """The part of them in which images are worked on."""


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """Of the shards that are to do."""

    work_h: float
    """Worker-hours of the images alone, with no worker ever idle."""
    shard_s: float
    """Of a mean shard."""
    longest_shard_s: float
    redone: float
    """Work done twice, as a share of all, at PREEMPTED_AN_HOUR."""
    at: tuple[AtWorkers, ...]
    good_shard_images: int | None
    """Of what size shards would be better; None where they are good."""


def run_estimate(
    images: Sequence[float], cost: ImageCost, workers: int, others: Collection[int] = ()
) -> RunEstimate | None:
    """`images` of every shard, in the order in which they are worked on, at `workers` and at
    `others`; None where there is no image.
    """
    shards_s = [count * cost.image_s for count in images if count > 0]
    if not shards_s:
        return None
    work_s = sum(shards_s)
    mean_images = work_s / cost.image_s / len(shards_s)
    at = [_at(shards_s, cost, mean_images, n) for n in sorted({workers, *others})]
    return RunEstimate(
        work_h=work_s / _HOUR_S,
        shard_s=work_s / len(shards_s),
        longest_shard_s=max(shards_s),
        redone=redone_share(shards_s, PREEMPTED_AN_HOUR),
        at=tuple(at),
        good_shard_images=_good_images(shards_s, cost, workers, mean_images),
    )


def _at(shards_s: Sequence[float], cost: ImageCost, shard_images: float, workers: int) -> AtWorkers:
    wall_s = cost.ends_s + makespan_s(shards_s, workers) + cost.write_s * shard_images
    return AtWorkers(
        workers=workers,
        wall_s=wall_s,
        held_h=workers * wall_s / _HOUR_S,
        efficiency=sum(shards_s) / (workers * wall_s) if wall_s else 0.0,
    )


def makespan_s(shards_s: Iterable[float], workers: int) -> float:
    """Until the last of these shards is done, each taken by the worker that is free first."""
    free_at_s = [0.0] * workers
    for shard_s in shards_s:
        heapq.heapreplace(free_at_s, free_at_s[0] + shard_s)
    return max(free_at_s)


def redone_share(shards_s: Sequence[float], preempted_an_hour: float) -> float:
    """Expected work that is done twice, as a share of all work.

    A worker that is preempted at the rate r loses what it has done of its shard, which begins
    anew: a shard of s hours then takes (exp(r s) - 1) / r hours of work, which for short shards is
    s (1 + r s / 2), half a shard lost each time.
    """
    rate = preempted_an_hour / _HOUR_S
    try:
        needed_s = sum(math.expm1(rate * shard_s) / rate for shard_s in shards_s)
    except OverflowError:
        return math.inf
    return needed_s / sum(shards_s) - 1


def _good_images(
    shards_s: Sequence[float], cost: ImageCost, workers: int, mean_images: float
) -> int | None:
    """Where there are few shards a worker, or long ones: a size with which neither is so."""
    few = workers > 1 and len(shards_s) < FEW_SHARDS_A_WORKER * workers
    if not few and max(shards_s) <= LONG_SHARD_S:
        return None
    images = len(shards_s) * mean_images
    good = min(images / (_GOOD_SHARDS_A_WORKER * workers), _GOOD_SHARD_S / cost.image_s)
    whole = max(1, round(good))
    return whole if whole < mean_images else None
