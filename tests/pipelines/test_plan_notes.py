"""What a plan warns of, and what it leaves unsaid."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.config import RunConfig
from pipelines.image_cost import ImageCost
from pipelines.input_sizes import InputSizes
from pipelines.output_sizes import FileSize, MeasuredOutput
from pipelines.plan import counted_plan
from pipelines.plan_report import PlanReport, ShardStates, plan_report
from pipelines.probe import Probe

PROBE = Probe(
    shard="a", device="a card", on_gpu=True, images=4, failed=0, batch=4, run_batch=4,
    smaller_batch=None, start_s=30, first_batch_s=3, model_s=2, waited_s=0, read_s=1, write_s=0.1,
    start_cpu_s=9, cpu_s=1.5, decode_cpu_s=0.01, encode_cpu_s=0.1,
    peak_bytes=10**9, peak_device_bytes=2 * 10**9,
    output=MeasuredOutput(
        images=FileSize(6000, 50_000),
        directions=FileSize(),
        latents=FileSize(),
        commit=FileSize(18_000, 900),
    ),
)  # fmt: skip
"""Of a card that no test has."""


def report(
    shards: ModuleType,
    *,
    count: int = 100,
    images: int = 1000,
    probe: Probe | None = PROBE,
    events: ImageCost | None = None,
    **execution: Any,
) -> PlanReport:
    made: RunConfig = shards.config(
        "embedded", "-", Path("/nowhere/run"), execution={"engine": "ray"} | execution
    )
    names = [str(number) for number in range(count)]
    return plan_report(
        made,
        counted_plan(made, count, count * images),
        [],
        InputSizes(dict.fromkeys(names, 10 * images), 10.0),
        ShardStates(count, 0, 0, count, 0),
        "0" * 64,
        pending=names,
        events_cost=events,
        probe=probe,
        others=(),
    )


def test_a_run_of_many_short_shards_on_the_card_that_was_probed_needs_no_note(
    shards: ModuleType,
) -> None:
    found = report(shards, gpus_per_worker=1, workers=8)
    assert found.notes == ()
    assert found.gpus_a_worker == 1
    assert found.output.images == 100 * 6000 + 100 * 1000 * 50_000
    assert found.output.commits == 100 * 18_000 + 100 * 1000 * 900
    assert found.output.manifest == 18_000 + 100 * 1000 * 900
    assert found.estimate is not None
    assert found.estimate.work_h == pytest.approx(100 * 1000 * 2 / 3600)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"probe": None}, "nothing has been measured"),
        (
            {"workers": 64},
            "100 shards for 64 workers: .*; shards of about 156 images would be better",
        ),
        (
            {"images": 10_000},
            r"a shard takes up to 5.56 h, .* again: 15.3 % of all work, if 5 % of the workers .*"
            " about 900 images",
        ),
        (
            {"probe": replace(PROBE, on_gpu=False), "gpus_per_worker": 1},
            "asks for 1 GPUs a worker, and the probe saw none",
        ),
        ({"gpus_per_worker": 0.25}, "4 workers are to share one"),
        ({"probe": replace(PROBE, run_batch=16)}, "had 4 images, those of the run have 16"),
        ({"probe": replace(PROBE, smaller_batch=2)}, "batches of 2 only"),
        ({"probe": replace(PROBE, failed=1)}, "1 of the probe's images ended in errors"),
    ],
)
def test_what_makes_an_estimate_doubtful_or_a_run_wasteful_is_told(
    shards: ModuleType, changes: dict[str, Any], note: str
) -> None:
    (found,) = report(shards, **changes).notes
    assert re.search(note, found)


def test_images_of_a_run_begun_are_as_large_as_those_it_has_made(shards: ModuleType) -> None:
    cost = ImageCost("events", "by hand", None, 4, 2.0, 30, 1, 0.1, image_bytes=1234.0)
    found = report(shards, probe=None, events=cost, gpus_per_worker=0.5)
    assert found.output.images == 100 * 1000 * 1234
    assert found.output.directions > 0
    assert found.gpus_a_worker == 0.5


def test_workers_are_counted_where_no_gpu_was_seen(shards: ModuleType) -> None:
    on_cpu = replace(PROBE, on_gpu=False)
    assert report(shards, probe=on_cpu).gpus_a_worker == 0
    assert report(shards, probe=on_cpu, gpus_per_worker=1).gpus_a_worker == 0
    assert report(shards, engine="local").gpus_a_worker == 1
