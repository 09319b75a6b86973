"""Shards measured in processes: every one once, and the reason when a process dies or refuses."""

from __future__ import annotations

import os
import signal

import pytest
from rich.console import Console

from cluster.evaluation_line import MeasuringTally, measuring_line
from cluster.evaluation_pool import WorkersLost, measure_shards
from lib.problems import ModelProblem
from pipelines.evaluation.orders import Order, Receipt, RunSource

ORDER = Order("{}", None, "nowhere", "0" * 64, RunSource("nowhere"))


class Counting:
    """Says how many images a shard has: the number in its name."""

    def __init__(self, order: Order) -> None:
        assert order == ORDER

    def __call__(self, shard: str) -> Receipt:
        return Receipt(shard, images=int(shard), edits=2 * int(shard), failed=1)


class Refusing(Counting):
    def __init__(self, order: Order) -> None:
        raise ModelProblem("expected a model, got none")


class Dying(Counting):
    def __call__(self, shard: str) -> Receipt:
        if shard == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_shard_is_measured_once(workers: int) -> None:
    shards = [str(n) for n in range(5)]
    found = list(measure_shards(Counting, ORDER, shards, workers))
    assert sorted(r.shard for r in found) == shards
    assert sum(r.images for r in found) == 10


def test_a_model_that_cannot_be_used_is_refused_from_a_process_too() -> None:
    with pytest.raises(ModelProblem, match="expected a model"):
        list(measure_shards(Refusing, ORDER, ["1", "2"], 2))


def test_a_process_that_dies_ends_in_a_sentence_that_says_what_to_do() -> None:
    with pytest.raises(WorkersLost, match="run the same command again"):
        list(measure_shards(Dying, ORDER, ["1", "2", "3"], 2))


def test_the_line_counts_what_earlier_calls_did() -> None:
    tally = MeasuringTally(shards=4, earlier=6, begun_at=0.0)
    assert "ETA ?" in tally.line(1.0)
    tally.add(Receipt("a", images=8, edits=48, failed=1))
    assert tally.line(10.0) == (
        "evaluate 7/10 shards (6 by an earlier call) | 8 img (1 err) | 48 edits | 0.8 img/s"
        " | ETA 30s"
    )


def test_a_log_gets_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with measuring_line(1, 0, Console(width=200)) as report:
        report(Receipt("a", images=1, edits=1))
    assert "evaluate 1/1 shards" in capsys.readouterr().out
