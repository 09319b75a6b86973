"""From what an image costs to hours at so many workers, with the arithmetic of the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.image_cost import ImageCost, cost_of_events
from pipelines.run_estimate import makespan_s, redone_share, run_estimate


def cost(model_s: float = 2.0, **changes: float) -> ImageCost:
    values = {"start_s": 30.0, "read_s": 5.0, "write_s": 0.1} | changes
    return ImageCost("probe", "by hand", None, 4, model_s, **values)


def test_shards_are_the_unit_of_the_wall_time() -> None:
    found = run_estimate([100.0] * 10, cost(), 4)
    assert found is not None
    assert found.work_h == 10 * 100 * 2 / 3600
    assert (found.shard_s, found.longest_shard_s) == (200, 200)
    (at,) = found.at
    # 10 shards of 200 s on 4 workers are 3 rounds, of which the last has 2 shards. Before them a
    # worker starts (30 s) and reads its first shard (5 s), behind them it writes its last (10 s).
    assert at.wall_s == 3 * 200 + 30 + 5 + 10
    assert at.held_h == 4 * 645 / 3600
    assert at.efficiency == 2000 / (4 * 645)


def test_every_number_of_workers_is_told_once_and_in_order() -> None:
    found = run_estimate([1.0] * 3, cost(), 2, [8, 1, 2])
    assert found is not None
    assert [at.workers for at in found.at] == [1, 2, 8]
    assert [at.wall_s - 35.1 for at in found.at] == pytest.approx([6, 4, 2])


def test_a_shard_is_taken_by_the_worker_that_is_free_first() -> None:
    assert makespan_s([5, 1, 1, 1, 3], 2) == 6  # 5 | 1 1 1 3
    assert makespan_s([1, 1, 1, 3, 5], 2) == 7  # 1 1 5 | 1 3
    assert makespan_s([4, 2], 9) == 4


def test_where_nothing_is_to_do_nothing_is_estimated() -> None:
    assert run_estimate([], cost(), 4) is None
    assert run_estimate([0.0, 0.0], cost(), 4) is None


def test_encoding_sets_the_pace_where_three_threads_take_longer_than_the_model() -> None:
    assert cost(0.1, encode_s=0.9).image_s == pytest.approx(0.3)
    assert cost(0.4, encode_s=0.9).image_s == 0.4


def test_redone_work_is_that_of_a_simulation_of_preempted_workers() -> None:
    generator, rate_an_hour, shard_h = np.random.default_rng(0), 0.5, 1.5
    done_h = 0.0
    for _ in range(20_000):
        while (until := generator.exponential(1 / rate_an_hour)) < shard_h:
            done_h += until
        done_h += shard_h
    simulated = done_h / (20_000 * shard_h) - 1
    assert redone_share([shard_h * 3600], rate_an_hour) == pytest.approx(simulated, rel=0.05)
    # Short shards lose half of one each time: 0.05 an hour * 0.1 h / 2.
    assert redone_share([360.0] * 7, 0.05) == pytest.approx(0.0025, rel=0.01)
    assert redone_share([1e9], 0.05) == math.inf


@pytest.mark.parametrize(
    ("shards", "images", "workers", "good"),
    [
        (20, 1000, 8, None),  # more than two a worker, and 2000 s are less than an hour
        (10, 1000, 8, 125),  # 10,000 images for 80 shards
        (10, 10_000, 8, 900),  # half an hour at 2 s
        (1000, 10_000, 8, 900),
        (1, 1000, 1, None),
        (4, 1, 8, None),  # cannot be smaller
    ],
)
def test_a_better_size_of_shards_is_named_where_they_are_few_or_long(
    shards: int, images: int, workers: int, good: int | None
) -> None:
    found = run_estimate([float(images)] * shards, cost(), workers)
    assert found is not None
    assert found.good_shard_images == good


def event(kind: str, second: int, **fields: object) -> dict[str, object]:
    return {"time": f"2026-01-01T00:00:{second:02d}.000+00:00", "event": kind, **fields}


def receipt(n_in: int, model_s: float, host: str) -> dict[str, object]:
    return {
        "n_in": n_in, "model_s": model_s, "read_s": 1.0, "write_s": 2.0, "bytes_out": 50 * n_in,
        "host": host,
    }  # fmt: skip


def test_events_tell_what_an_image_has_cost() -> None:
    found = cost_of_events(
        [
            event("run_started", 0),
            event("worker_ready", 12),
            event("worker_ready", 59),  # had to wait for its machine, so tells nothing
            event("shard_done", 30, report=receipt(10, 25.0, "a")),
            event("run_started", 0),
            event("worker_ready", 20),
            event("shard_done", 40, report=receipt(30, 35.0, "b")),
        ]
    )
    assert found is not None
    assert (found.source, found.images) == ("events", 40)
    assert found.measured == "by this run's workers on a, b: 40 images of 2 shards"
    assert found.model_s == (25 + 35) / 40
    assert (found.read_s, found.write_s) == (1.0, 4 / 40)
    assert found.start_s == (12 + 20) / 2
    assert found.image_bytes == 50


def test_events_of_a_run_that_has_done_nothing_tell_nothing() -> None:
    assert cost_of_events([event("run_started", 0), event("worker_ready", 9)]) is None
    assert cost_of_events([]) is None
