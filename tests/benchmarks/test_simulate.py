"""The schedule in a simulated cluster: whatever happens there, nothing is lost, twice or wrong."""

from __future__ import annotations

import pytest

from benchmarks.simulate import simulate
from benchmarks.simulated_cluster import World
from cluster.scheduling.orders import Rules

SMALL = World(workers=50, shards=1500, images=16, away_s=300.0)


@pytest.mark.parametrize(
    "world",
    [
        SMALL,
        World(workers=50, shards=1500, images=16, preempted=0.9, away_s=120.0),
        World(workers=50, shards=1500, images=16, poison=0.05, hanging=0.5),
        World(workers=50, shards=1500, images=16, stragglers=0.0, slow_workers=0.3, slowdown=20),
        World(workers=50, shards=20),
    ],
    ids=["default", "preempted", "poisoned", "slow machines", "more workers than shards"],
)
def test_every_good_shard_is_done_once_and_only_poison_is_given_up(world: World) -> None:
    result = simulate(world, Rules(workers=world.workers))
    assert (result.missing, result.twice, result.wrong) == (0, 0, 0)
    assert result.done + result.quarantined == world.shards
    assert result.useful + result.lost + result.starting + result.idle == pytest.approx(1.0)


def test_without_any_fault_the_workers_only_start_and_work() -> None:
    calm = World(
        workers=10, shards=400, images=16, spread=0.0, preempted=0.0, poison=0.0, stragglers=0.0
    )
    result = simulate(calm, Rules(workers=10))
    # 40 shards of 16 x 5 s a worker after 80 s of start, 2 s to read the first, 2 to write the last
    assert result.makespan_s == pytest.approx(40 * 80 + 80 + 4)
    assert result.attempts == 400
    assert result.useful == pytest.approx(3200 / 3284, abs=0.001)


def test_duplicates_shorten_the_end_that_one_slow_machine_makes_long() -> None:
    slow = World(
        workers=20, shards=400, images=16, preempted=0.0, poison=0.0, stragglers=0.0,
        slow_workers=0.3, slowdown=30.0,
    )  # fmt: skip
    alone = simulate(slow, Rules(workers=20, duplicate_above=0.0))
    doubled = simulate(slow, Rules(workers=20))
    assert alone.duplicates == 0
    assert 0 < doubled.duplicates <= 20
    assert doubled.end_s < 0.2 * alone.end_s
