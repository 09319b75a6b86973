"""`deltah plan` as a user meets it: tables, JSON, a probe that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from cluster.cli import main
from cluster.runner import run
from pipelines.config import RunConfig
from pipelines.plan_report import PlanReport
from pipelines.request_counts import ONCE, Requests

pytestmark = pytest.mark.timeout(120)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> PlanReport:
    """The JSON document, read by its types."""
    capsys.readouterr()
    assert call("plan", *arguments, "--json") == 0
    return TypeAdapter(PlanReport).validate_json(capsys.readouterr().out)


@pytest.fixture
def config(tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path) -> Path:
    """Of a run of three shards with four pictures each."""
    pattern = shards.write_shards(tmp_path / "in", 3, 4)
    made = shards.config(tiny_checkpoint, pattern, tmp_path / "run")
    found: Path = shards.write_config(tmp_path / "run.yaml", made)
    return found


def test_a_probe_is_an_estimate_in_tables_and_in_json(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", config, "--probe", 2, "--at", "3,2") == 0
    out, err = capsys.readouterr()
    text = " ".join(out.replace("│", " ").split())
    assert "by a probe of 2 images of in-0, on" in text
    assert "worker-hours for the 12 images to do" in text
    assert "wall time" in text
    assert "requests to the store" not in text
    assert "2 images of in-0 measured | 100%" in err

    found = planned(capsys, config, "--probe", 2, "--at", "3,2")
    assert found.probe is not None
    assert found.cost == found.probe.cost
    assert (found.shards.inputs, found.shards.pending, found.images_to_do) == (3, 3, 12)
    assert found.estimate is not None
    assert [at.workers for at in found.estimate.at] == [1, 2, 3]
    assert found.estimate.work_h == pytest.approx(12 * found.cost.image_s / 3600, rel=0.05)
    assert found.network_evaluations == found.counts.evaluations
    assert not (tmp_path / "run").exists()


def test_requests_are_told_where_a_store_is_used(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", config, "--set", "output.folder=memory://planned/run") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    # Three shards, each an input, looked at for its size, and the commit for finalize; two files
    # and a commit.
    reckoned = ONCE + Requests(get=2, put=3, head=1).times(3)
    told = f"{reckoned.get} GET, {reckoned.head} HEAD, {reckoned.put} PUT, {reckoned.list} LIST"
    assert f"{told}, without those that a driver sends while it waits" in text


def test_without_a_measurement_there_are_counts_and_advice(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(capsys, config)
    assert (found.cost, found.probe, found.estimate) == (None, None, None)
    assert found.output.total > 0
    (note,) = found.notes
    assert "deltah plan CONFIG --probe 4" in note


def test_a_run_that_has_been_begun_tells_what_the_rest_will_cost(
    config: Path, shards: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = RunConfig.model_validate_json(planned_config(config))
    outcome = run(made, console=Console(quiet=True))
    assert outcome.exit_code == 0
    receipts = [event["report"] for event in shards.events(tmp_path / "run", "shard_done")]
    shards.write_tar(tmp_path / "in" / "in-3.tar", shards.samples(4, first=300))
    found = planned(capsys, config)
    assert found.cost is not None
    assert found.cost.source == "events"
    assert found.cost.model_s == pytest.approx(sum(r["model_s"] for r in receipts) / 12)
    assert found.cost.image_bytes == sum(r["bytes_out"] for r in receipts) / 12
    assert (found.shards.committed, found.shards.pending, found.images_to_do) == (3, 1, 4)
    assert found.estimate is not None
    assert found.estimate.work_h == pytest.approx(4 * found.cost.image_s / 3600, rel=0.05)
    assert planned(capsys, config, "--probe", "1").cost != found.cost

    (events,) = (tmp_path / "run" / "events").iterdir()
    events.write_text('{"time": "then", "event": "run_started"}\n')
    assert call("plan", config) == 2
    assert "expected the events of this release" in capsys.readouterr().err


def planned_config(path: Path) -> str:
    from pipelines.config_file import load_config

    return load_config(str(path), ()).model_dump_json()


@pytest.mark.parametrize("numbers", ["", "8,", "eight", "0,8", "1.5"])
def test_numbers_of_workers_are_whole_and_above_zero(
    config: Path, numbers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", config, "--at", numbers) == 2
    assert "such as 8,64,512" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_probe_that_is_stopped_leaves_nothing_behind(
    shards: ModuleType, tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(200))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", grid={"num_steps": 200})
    config = shards.write_config(tmp_path / "run.yaml", made)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        shards.command("plan", config, "--probe", 200),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=shards.environment(TMPDIR=str(temporary)),
    )
    deadline = time.monotonic() + 60
    while not list(temporary.glob("*/input/in.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # into the loading of torch, or beyond
    assert os.listdir(temporary)
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    # By the signal where it fell into an `exec` of an import: Python remembers that at its exit.
    assert process.returncode in (1, -signal.SIGINT), err
    assert "stopped; nothing is left of the probe" in err
    assert "Traceback" not in out + err
    assert os.listdir(temporary) == []
    assert not (tmp_path / "run").exists()
