"""The progress line, with the arithmetic of its numbers."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cluster.progress import ProgressLine, Tally, duration, line
from cluster.scheduling.orders import Counts
from cluster.views.library import ScoringTally, scoring_line
from lib.receipts import ShardReport
from pipelines.measurement import Progress


def receipt(n_in: int, n_err: int, model_s: float, wait_s: float = 0.0) -> ShardReport:
    return ShardReport(
        "s", 1, "committed", n_in, n_in - n_err, n_err, 9, 1, 1, 0.1, model_s, wait_s, 0.1, "h"
    )


def test_the_line_adds_receipts_and_earlier_runs_and_reckons_in_images() -> None:
    tally = Tally("gpu")
    tally.pass_time(2, 100.0)
    tally.pass_time(2, 150.0)  # two workers for 50 s: 100 worker seconds
    tally.add(receipt(300, 3, model_s=48.0, wait_s=1.0), 150.0)
    tally.add(receipt(100, 0, model_s=47.0), 150.0)  # 94 busy seconds of 100
    counts = Counts(total=12, done=2, quarantined=1, in_flight=4, waiting=5)
    # 400 images in 50 s; 9 shards of 200 images at 8 a second: 225 s, 5 of which have passed.
    assert line(counts, tally, done_before=30, lost_before=2, now=155.0) == (
        "edit 35/44 shards | 32 ok 3 quarantined | 400 img (3 err) | 8.0 img/s | gpu 94%"
        " | ETA 3m40s"
    )


def test_before_the_first_receipt_nothing_is_promised() -> None:
    tally = Tally("model")
    text = line(Counts(3, 0, 0, 2, 1), tally, 0, 0, now=9.0)
    assert text.endswith("| 0 img (0 err) | 0.0 img/s | model 0% | ETA ?")


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
