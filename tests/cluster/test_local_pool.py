"""Whole runs of toy shards in this process."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lib.ledger.verification import verify
from lib.problems import Problem
from pipelines.config import Execution

pytestmark = pytest.mark.timeout(60)


def test_all_shards_are_committed_and_the_run_is_finalized(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(a={}, b={"samples": 3}, c={})
    outcome = toy_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (0, 3, 0)
    assert verify(toy_run.folder, deep=True).ok
    assert (toy_run.root / "run" / "index.json").exists()
    done = toy_run.events("shard_done")
    assert {event["report"]["shard"] for event in done} == {"a", "b", "c"}
    assert [event["event"] for event in toy_run.events("run_finished")] == ["run_finished"]
    (line,) = (line for line in toy_run.printed().splitlines() if " | " in line)
    assert line.startswith("edit 3/3 shards | 3 ok 0 quarantined | 7 img (7 err) | ")


def test_two_shards_overlap(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(a={"seconds": 1.0}, b={"seconds": 1.0})
    begun = time.monotonic()
    toy_run.run(toys.ToyWorker)
    assert time.monotonic() - begun < 1.9


def test_bad_shards_are_given_up_by_name_with_reason_and_the_rest_is_done(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, bad={"do": "raise"}, torn={"do": "damage"}, leaves={"do": "sys_exit"}, z={})
    outcome = toy_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 2, 3)
    reasons = toy_run.folder.quarantined()
    assert reasons["bad"] == "ValueError: a shard that raises"
    assert reasons["torn"].startswith("ShardDamage: cut at")
    assert reasons["leaves"] == "SystemExit: 0"
    assert [len(toy_run.starts(name)) for name in ("bad", "torn", "leaves")] == [3, 1, 3]
    assert verify(toy_run.folder).ok


def test_a_second_run_does_nothing_and_retry_quarantined_tries_again(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, bad={"do": "raise"})
    assert toy_run.run(toys.ToyWorker).exit_code == 3
    assert toy_run.run(toys.ToyWorker).exit_code == 3
    assert len(toy_run.starts("bad")) == 3
    toy_run.write(bad={})
    outcome = toy_run.run(toys.ToyWorker, retry_quarantined=True)
    assert (outcome.exit_code, outcome.done) == (0, 2)
    assert len(toy_run.starts("a")) == 1
    assert toy_run.folder.quarantined() == {}


def test_a_shard_that_vanishes_after_the_listing_is_given_up_after_one_more_look(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={"seconds": 0.5}, b={"seconds": 0.5}, gone={})
    shard = toy_run.root / "in" / "gone.tar"
    threading.Timer(0.3, shard.unlink).start()
    outcome = toy_run.run(toys.ToyWorker)
    assert outcome.exit_code == 3
    assert toy_run.folder.quarantined()["gone"].startswith("FileNotFoundError")
    assert len(toy_run.events("shard_failed")) == 2


@pytest.mark.parametrize("what", ["full", "forbidden"])
def test_an_output_that_takes_no_writes_stops_the_run_and_gives_no_shard_up(
    toy_run: Any, toys: ModuleType, what: str
) -> None:
    toy_run.write(a={"do": what}, b={"do": what}, c={"do": what})
    outcome = toy_run.run(toys.ToyWorker)
    assert outcome.exit_code == 1
    assert "the output folder takes no more writes" in outcome.sentence
    assert toy_run.folder.quarantined() == {}


def test_a_hanging_shard_is_given_up_and_the_others_are_done(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, hangs={"do": "hang"}, z={})
    toy_run.rules = replace(toy_run.rules, stall_timeout_s=0.7, max_attempts=2)
    outcome = toy_run.run(toys.ToyWorker)
    assert (outcome.exit_code, outcome.done) == (3, 2)
    assert "finished no image for 0.7 s" in toy_run.folder.quarantined()["hangs"]
    assert outcome.threads_left, "the caller must leave by os._exit"


def test_a_model_that_cannot_be_used_ends_the_run_with_exit_2(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={})
    outcome = toy_run.run(toys.RefusingWorker)
    assert outcome.exit_code == 2
    assert "expected a UNet2DModel, got a toaster" in outcome.sentence


def test_a_worker_that_cannot_be_made_ends_the_run_with_its_error(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, b={})
    outcome = toy_run.run(toys.BrokenWorker)
    assert outcome.exit_code == 1
    assert "OSError: no such accelerator" in outcome.sentence


def test_too_many_errors_stop_the_run_with_exit_4(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(**{f"s{i}": {"samples": 60} for i in range(6)})
    toy_run.rules = replace(toy_run.rules, max_error_rate=0.5)
    outcome = toy_run.run(toys.ToyWorker)
    assert outcome.exit_code == 4
    assert outcome.done < 6
    assert not (toy_run.root / "run" / "index.json").exists()


def test_a_folder_of_another_fingerprint_is_refused_by_field(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={})
    toy_run.run(toys.ToyWorker)
    other = {"a": np.zeros(1, np.float32)}
    save_file(other, toy_run.root / "model" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(Problem, match=r"model\.weights_sha256"):
        toy_run.run(toys.ToyWorker)


def test_more_than_one_local_worker_is_refused(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(a={})
    toy_run.execution = Execution(workers=2)
    with pytest.raises(Problem, match=r"expected 1 with engine local.*--engine ray"):
        toy_run.run(toys.ToyWorker)


def test_two_drivers_on_one_folder_both_end_well(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(**{f"s{i}": {"seconds": 0.1} for i in range(6)})
    outcomes = []
    drivers = [
        threading.Thread(target=lambda: outcomes.append(toy_run.run(toys.ToyWorker)))
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert verify(toy_run.folder, deep=True).ok
