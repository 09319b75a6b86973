"""The progress line, with the arithmetic of its numbers."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cluster.pools.protocol import ShardFinished, WorkerReady
from cluster.progress import ProgressLine, duration, line
from cluster.scheduling.orders import Counts
from cluster.views.library import ScoringTally, scoring_line
from cluster.watching.tally import Tally
from lib.receipts import ShardReport, ShardTask
from pipelines.measurement import Progress


def done(shard: str, n_in: int, n_err: int, model_s: float, **times: float) -> ShardFinished:
    report = ShardReport(
        shard=shard,
        attempt=1,
        outcome="committed",
        n_in=n_in,
        n_ok=n_in - n_err,
        n_err=n_err,
        n_edits=9,
        bytes_in=1,
        bytes_out=1,
        read_s=0.1,
        model_s=model_s,
        wait_s=times.get("wait_s", 0.0),
        write_s=0.1,
        host="h",
        idle_s=times.get("idle_s", 0.0),
    )
    return ShardFinished(0, ShardTask(shard, "u", 1), report)


def test_the_line_adds_receipts_and_earlier_runs_and_reckons_in_images() -> None:
    tally = Tally(0.0)
    tally.noted(WorkerReady(0, "h", 1), 100.0)
    tally.noted(done("a", 300, 3, model_s=50.0, wait_s=2.0), 150.0)
    tally.noted(done("b", 100, 0, model_s=46.0, idle_s=4.0), 150.0)
    # The model computed for 48 + 46 of 100 s. 400 images in 50 s; 9 shards of 200 images at 8 a
    # second: 225 s, 5 of which have passed.
    counts = Counts(total=12, done=2, quarantined=1, in_flight=4, waiting=5)
    text = line("edit", "gpu", counts, tally, done_before=30, lost_before=2, now=155.0)
    assert text == (
        "edit 35/44 shards | 32 ok 3 quarantined | 400 img (3 err) | 8.0 img/s | gpu 94%"
        " | ETA 3m40s"
    )


def test_before_the_first_receipt_nothing_is_promised() -> None:
    text = line("edit", "model", Counts(3, 0, 0, 2, 1), Tally(0.0), 0, 0, now=9.0)
    assert text.endswith("| 0 img (0 err) | 0.0 img/s | model ? | ETA ?")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.6, "1h00m"), (7800, "2h10m")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_a_plain_line_every_half_minute_and_a_last_one() -> None:
    file = io.StringIO()
    with ProgressLine(Console(file=file), lambda now: f"at {now:g}", 0.0) as progress:
        for second in range(1, 71):
            progress.tick(float(second))
        progress.finish(70.0)
    assert file.getvalue() == "at 30\nat 60\nat 70\n"


def test_scoring_counts_images_and_reckons_without_what_was_done_before() -> None:
    tally = ScoringTally()
    assert tally.line(3.0) == "score | loading the model and inverting the images"
    tally.add(Progress(16, 0, 5120, 0, 0), 100.0)
    tally.add(Progress(16, 4, 5120, 1280, 1280), 101.0)
    assert tally.line(101.0).endswith("| ETA ?")
    tally.add(Progress(16, 6, 5120, 1920, 1280), 164.0)  # 640 in 64 s, 3200 are left
    assert tally.line(164.0) == (
        "score 6/16 images | 1,920/5,120 edits searched (1,280 by an earlier call) | ETA 5m20s"
    )


def test_scoring_leaves_a_line_in_a_log() -> None:
    file = io.StringIO()
    with scoring_line(Console(file=file)) as report:
        report(Progress(2, 2, 8, 8, 0))
    assert file.getvalue() == "score 2/2 images | 8/8 edits searched | ETA 0s\n"


def test_a_terminal_gets_one_line_redrawn_at_most_twice_a_second() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with ProgressLine(console, lambda now: f"at {now:g}", 0.0) as progress:
        for tenth in range(1, 21):
            progress.tick(tenth / 10)
        progress.finish(2.0)
    assert file.getvalue().count("at ") == 4 + 2, "every half second, and when it is left to stand"
    assert file.getvalue().count("\n") == 1
