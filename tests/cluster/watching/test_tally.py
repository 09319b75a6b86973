"""A driver run in numbers, with the arithmetic of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.pools.protocol import (
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.orders import KillWorker, LetGo, Quarantine
from cluster.scheduling.verdicts import Raised
from cluster.watching.observer import Noted
from cluster.watching.shard_log import shard_sentence
from cluster.watching.tally import Tally
from lib.ledger.work import total
from lib.receipts import ShardReport, ShardTask

REPORT = ShardReport(
    shard="a",
    attempt=1,
    outcome="committed",
    n_in=100,
    n_ok=97,
    n_err=3,
    n_edits=400,
    bytes_in=10,
    bytes_out=70,
    read_s=2.0,
    model_s=45.0,
    wait_s=1.0,
    write_s=3.0,
    host="h",
    idle_s=5.0,
    error_kinds={"not_an_image": 3},
)


def told(*facts: tuple[float, Noted], gpus: float = 1.0) -> Tally:
    tally = Tally(0.0, gpus)
    for now, fact in facts:
        tally.noted(fact, now)
    return tally


def begun(worker: int, shard: str, attempt: int = 1) -> ShardStarted:
    return ShardStarted(worker, ShardTask(shard, "u", attempt))


def finished(worker: int, shard: str, **changes: object) -> ShardFinished:
    report = replace(REPORT, shard=shard, **changes)
    return ShardFinished(worker, ShardTask(shard, "u", 1), report)


def raised(worker: int, shard: str, verdict: str) -> ShardRaised:
    error = Raised("E", "m", "", verdict)  # type: ignore[arg-type]
    return ShardRaised(worker, ShardTask(shard, "u", 1), error)


def test_gpu_hours_count_loading_too_and_utilisation_counts_what_was_ready() -> None:
    tally = told(
        (10.0, WorkerPlaced(0, "h", 1)),
        (40.0, WorkerReady(0, "h", 1)),
        (41.0, begun(0, "a")),
        (90.0, finished(0, "a")),
        (100.0, WorkerDied(0, "gone", node_lost=True)),
        (100.0, WorkerPlaced(1, "h", 2)),
        gpus=0.5,
    )
    work = tally.upto(130.0)
    assert (work.held_s, work.ready_s, work.wall_s) == (90.0 + 30.0, 60.0, 130.0)
    assert work.gpu_hours == pytest.approx(0.5 * 120 / 3600)
    assert work.waited == pytest.approx((1 + 5) / (45 + 5))
    assert work.utilisation == pytest.approx(44 / 60)
    assert (tally.ready_workers, tally.loading_workers) == (0, 1)
    tally.stop(140.0)
    assert tally.upto(500.0).held_s == 130.0, "workers cost nothing once they are sent home"
    assert tally.upto(500.0).wall_s == 140.0


def test_a_shard_in_hand_does_not_count_against_the_utilisation_before_its_receipt() -> None:
    tally = told(
        (0.0, WorkerReady(0, "h", 1)),
        (50.0, finished(0, "a")),
        (50.0, begun(0, "b")),
    )
    assert tally.upto(90.0).ready_s == 50.0
    assert tally.upto(90.0).utilisation == pytest.approx(44 / 50)
    assert tally.upto(90.0).held_s == 90.0
    tally.stop(100.0)
    assert tally.upto(100.0).ready_s == 100.0, "what never came was in vain"


def test_a_shard_that_two_brought_to_its_end_counts_once_and_costs_twice() -> None:
    tally = told(
        (0.0, WorkerReady(0, "h", 1)),
        (9.0, finished(0, "a")),
        (9.5, finished(1, "a")),  # the same bytes, so its writer was told `committed` too
        (9.9, finished(1, "b", outcome="lost_race")),
    )
    work = tally.upto(10.0)
    assert (work.shards, work.images, work.errors, work.edits) == (1, 100, 3, 400)
    assert work.error_kinds == {"not_an_image": 3}
    assert (work.beaten, work.model_s, work.bytes_in, work.bytes_out) == (2, 135.0, 30, 70)
    assert tally.rate() == pytest.approx(100 / 9.0)


def test_attempts_end_in_a_result_an_error_or_with_their_worker() -> None:
    tally = told(
        (0.0, begun(0, "a")),
        (0.0, begun(0, "b")),
        (1.0, finished(0, "a")),
        (2.0, begun(0, "c")),
        (3.0, WorkerDied(0, "killed", node_lost=False)),
        (4.0, begun(1, "b", attempt=2)),
        (5.0, raised(1, "b", "damaged")),
        (5.0, Quarantine("b", "u", "damaged", "", 2)),
        (6.0, begun(1, "c", attempt=2)),
    )
    work = tally.work
    assert (work.attempts, work.again, work.shards, work.lost, work.given_up) == (5, 2, 1, 2, 1)
    assert work.failures == {"damaged": 1}


def test_a_straggler_that_is_doubled_is_not_begun_again_and_stopping_one_is_no_failure() -> None:
    tally = told(
        (0.0, begun(0, "a")),
        (9.0, begun(1, "a", attempt=2)),
        (10.0, finished(1, "a")),
        (10.1, raised(0, "a", "cancelled")),
    )
    work = tally.work
    assert (work.attempts, work.doubled, work.again, work.cancelled) == (2, 1, 0, 1)
    assert (work.shards, work.failures) == (1, {})


def test_a_worker_that_is_let_go_costs_nothing_any_more_and_is_no_death() -> None:
    tally = told((0.0, WorkerReady(0, "h", 1)), (10.0, LetGo(0)))
    assert (tally.upto(99.0).ready_s, tally.ready_workers) == (10.0, 0)
    assert tally.work.deaths == {}


def test_deaths_are_told_apart_by_their_cause() -> None:
    broken = Raised("E", "CUDA error", "", "worker_broken")
    tally = told(
        (0.0, WorkerDied(0, "node gone", node_lost=True)),
        (0.0, WorkerDied(1, "exit 1", node_lost=False)),
        (0.0, KillWorker(2, "it finished no image for 600 s")),
        (1.0, WorkerDied(2, "it finished no image for 600 s", node_lost=False)),
        (1.0, ShardRaised(3, ShardTask("a", "u", 1), broken)),
        (1.0, KillWorker(3, "it raised")),
        (1.0, WorkerDied(3, "it raised", node_lost=False)),
        (1.0, WorkerFailedToStart(4, broken)),
    )
    assert tally.work.deaths == {
        "machine lost": 1,
        "died": 1,
        "stalled": 1,
        "broken": 1,
        "could not start": 1,
    }


def test_the_rate_forgets_what_is_older_than_a_quarter_of_an_hour() -> None:
    tally = told((0.0, WorkerReady(0, "h", 1)), (10.0, finished(0, "a")))
    assert tally.rate() == pytest.approx(10.0)
    tally.noted(finished(0, "b"), 1000.0)
    assert tally.rate() == pytest.approx(100 / 900)
    assert tally.left_s(9, 1000.0) == pytest.approx(9 * 900)


def test_the_work_of_drivers_adds_up() -> None:
    first = told((0.0, WorkerReady(0, "h", 1)), (10.0, finished(0, "a"))).upto(10.0)
    second = told((0.0, finished(0, "b")), (0.0, raised(0, "c", "retry"))).upto(5.0)
    both = total([first, second])
    assert (both.shards, both.images, both.wall_s, both.ready_s) == (2, 200, 15.0, 10.0)
    assert both.error_kinds == {"not_an_image": 6}
    assert both.failures == {"retry": 1}
    assert first.error_kinds == {"not_an_image": 3}, "adding changes no part"


def test_a_shard_is_one_line_of_the_log() -> None:
    assert shard_sentence(7, REPORT, 51.04) == (
        "shard a, attempt 1, worker 7 on h: 100 images, 3 errors, 400 edits in 51.0 s,"
        " model 45.0 s, wait 12.0%"
    )
    late = shard_sentence(7, replace(REPORT, oom_batch=4, outcome="lost_race"), 1.0)
    assert late.endswith(
        "memory ran out, batch reduced to 4; another writer had committed it first"
    )
