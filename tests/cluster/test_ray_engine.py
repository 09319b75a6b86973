"""Whole runs of toy shards on real Ray actors: each fault ends, by name, within its time limit."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from cluster.cli import main
from lib.ledger.verification import verify
from pipelines.config import Execution

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def _ray(toys: ModuleType) -> Iterator[None]:
    """One Ray for all tests here; the toy module is not installed, so it travels by value."""
    from ray import cloudpickle

    from cluster.pools.ray_session import Resources, ray_session

    cloudpickle.register_pickle_by_value(toys)
    with ray_session("local", 2, Resources(gpus=0.0, threads=1)) as session:
        assert session.own
        yield
    cloudpickle.unregister_pickle_by_value(toys)


@pytest.fixture
def ray_run(toy_run: Any) -> Any:
    toy_run.execution = Execution(engine="ray", workers=2)
    toy_run.rules = replace(toy_run.rules, workers=2)
    toy_run.console = Console(file=io.StringIO())
    return toy_run


def kill_when_started(run: Any, shard: str) -> threading.Thread:
    """Send SIGKILL to the process that begins `shard` first."""

    def wait_and_kill() -> None:
        while not run.starts(shard):
            time.sleep(0.05)
        os.kill(int(run.starts(shard)[0].split()[0]), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_two_workers_share_the_shards_with_the_threads_they_were_given(
    ray_run: Any, toys: ModuleType
) -> None:
    ray_run.write(**{f"s{i}": {"seconds": 0.4} for i in range(8)})
    outcome = ray_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done) == (0, 8)
    lines = [line for i in range(8) for line in ray_run.starts(f"s{i}")]
    assert len(lines) == 8
    assert len({line.split()[0] for line in lines}) == 2
    assert {line.split()[1] for line in lines} == {"1"}
    assert verify(ray_run.folder, deep=True).ok


def test_kill_9_mid_shard_redoes_what_was_in_flight_and_loses_nothing(
    ray_run: Any, toys: ModuleType
) -> None:
    ray_run.write(**{f"s{i}": {"seconds": 0.5} for i in range(8)})
    killer = kill_when_started(ray_run, "s3")
    outcome = ray_run.run(toys.ToyWorker)
    killer.join()
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (0, 8, 0)
    assert sum(len(ray_run.starts(f"s{i}")) for i in range(8)) <= 10
    (died,) = ray_run.events("worker_died")
    assert not died["node_lost"]
    assert verify(ray_run.folder, deep=True).ok


def test_a_poison_shard_is_begun_three_times_and_its_neighbours_are_done(
    ray_run: Any, toys: ModuleType
) -> None:
    ray_run.write(poison={"do": "exit"}, **{f"s{i}": {"seconds": 0.2} for i in range(4)})
    outcome = ray_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 4, 1)
    assert len(ray_run.starts("poison")) == 3
    (quarantined,) = ray_run.events("quarantined")
    assert quarantined["attempts"] == 3


def test_two_shards_that_end_their_process_every_time_are_both_given_up(
    ray_run: Any, toys: ModuleType
) -> None:
    ray_run.write(
        poison={"do": "exit", "seconds": 0.3},
        quick={"do": "exit"},
        **{f"s{i}": {"seconds": 0.2} for i in range(4)},
    )
    outcome = ray_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 4, 2)
    reasons = ray_run.folder.quarantined()
    assert set(reasons) == {"poison", "quick"}
    assert all("the worker died" in reason for reason in reasons.values())
    # A shard that was charged for its neighbour's deed may begin once less, or, alone, once more.
    assert all(2 <= len(ray_run.starts(name)) <= 4 for name in reasons)
    assert verify(ray_run.folder).ok


def test_raising_damaged_and_exiting_shards_are_given_up_without_losing_the_worker(
    ray_run: Any, toys: ModuleType
) -> None:
    ray_run.write(a={}, bad={"do": "raise"}, torn={"do": "damage"}, leaves={"do": "sys_exit"}, z={})
    outcome = ray_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done) == (3, 2)
    reasons = ray_run.folder.quarantined()
    assert reasons["bad"] == "ValueError: a shard that raises"
    assert reasons["leaves"] == "SystemExit: 0"
    assert [len(ray_run.starts(name)) for name in ("bad", "torn", "leaves")] == [3, 1, 3]
    assert ray_run.events("worker_died") == []


def test_a_hanging_shard_is_ended_and_given_up(ray_run: Any, toys: ModuleType) -> None:
    ray_run.write(a={"seconds": 0.2}, hangs={"do": "hang"}, z={"seconds": 0.2})
    ray_run.rules = replace(ray_run.rules, stall_timeout_s=5.0, max_attempts=2)
    outcome = ray_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done) == (3, 2)
    assert "finished no image for 5 s" in ray_run.folder.quarantined()["hangs"]
    for line in ray_run.starts("hangs"):
        pid = int(line.split()[0])
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not os.path.exists(f"/proc/{pid}"), "its process is gone, not only forgotten"


@pytest.mark.parametrize(
    ("factory", "exit_code", "message"),
    [
        ("RefusingWorker", 2, "expected a UNet2DModel, got a toaster"),
        ("BrokenWorker", 1, "OSError: no such accelerator"),
    ],
)
def test_a_worker_that_cannot_be_made_ends_the_run_with_its_sentence(
    ray_run: Any, toys: ModuleType, factory: str, exit_code: int, message: str
) -> None:
    ray_run.write(a={}, b={})
    outcome = ray_run.run(getattr(toys, factory))
    assert outcome.exit_code == exit_code
    assert message in outcome.sentence


def test_a_full_output_stops_the_run(ray_run: Any, toys: ModuleType) -> None:
    ray_run.write(a={"do": "full"}, b={}, c={})
    outcome = ray_run.run(toys.ToyWorker)
    assert outcome.exit_code == 1
    assert "takes no more writes" in outcome.sentence
    assert ray_run.folder.quarantined() == {}


def test_asking_for_gpus_that_are_not_there_is_refused_in_one_sentence(
    ray_run: Any, toys: ModuleType
) -> None:
    from cluster.pools.protocol import ClusterProblem

    ray_run.write(a={})
    ray_run.execution = Execution(engine="ray", workers=1, gpus_per_worker=64)
    with pytest.raises(
        ClusterProblem, match=r"room for 1 workers of 64 GPU each, but the 1 machine"
    ):
        ray_run.run(toys.ToyWorker)


def test_workers_per_gpu_asks_ray_for_that_part_of_a_gpu(
    toy_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_run.write(a={})
    path = toy_run.root / "run.yaml"
    path.write_text(toy_run.config.model_dump_json())
    with pytest.raises(SystemExit) as end:
        main(["run", str(path), "--engine", "ray", "--workers-per-gpu", "4"])
    assert end.value.code == 2
    assert "room for 1 workers of 0.25 GPU each" in capsys.readouterr().err
