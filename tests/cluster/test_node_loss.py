"""Machines come and go in mid-run: a lost one is nobody's fault, a new one is used, a bad one is
avoided.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from lib.ledger.verification import verify
from pipelines.config import Execution

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def machines(toys: ModuleType) -> Iterator[Any]:
    """A head without room for work, in a temp folder of its own."""
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(toys)
    folder = tempfile.mkdtemp(prefix="dh", dir="/tmp")
    os.makedirs(f"{folder}/ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", folder)  # else it would name itself in the folder of others
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 100_000_000,
        },
    )
    yield cluster
    cluster.shutdown()
    patch.undo()
    cloudpickle.unregister_pickle_by_value(toys)
    shutil.rmtree(folder, ignore_errors=True)


NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


def test_shards_of_a_lost_machine_are_done_elsewhere_and_not_charged(
    machines: Any, toy_run: Any, toys: ModuleType
) -> None:
    stays, leaves = machines.add_node(**NODE), machines.add_node(**NODE)
    toy_run.write(**{f"s{i}": {"seconds": 2.0} for i in range(10)})
    toy_run.execution = Execution(engine="ray", workers=2)
    toy_run.rules = replace(toy_run.rules, workers=2, max_attempts=1, duplicate_above=0.0)

    def remove() -> None:
        while len({line for i in range(10) for line in toy_run.starts(f"s{i}")}) < 2:
            time.sleep(0.1)
        machines.remove_node(leaves, allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    outcome = toy_run.run(toys.ToyWorker, address=machines.address)
    remover.join()
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (0, 10, 0)
    (died,) = toy_run.events("worker_died")
    assert died["node_lost"]
    assert verify(toy_run.folder, deep=True).ok
    machines.remove_node(stays)


def test_a_machine_that_joins_in_mid_run_gets_the_worker_that_found_no_room(
    machines: Any, toy_run: Any, toys: ModuleType
) -> None:
    nodes = [machines.add_node(**NODE)]
    toy_run.write(**{f"s{i:02d}": {"seconds": 2.0} for i in range(16)})
    toy_run.execution = Execution(engine="ray", workers=2)
    toy_run.rules = replace(toy_run.rules, workers=2)

    with ThreadPoolExecutor(1) as pool:  # a node can be added by the main thread only
        running = pool.submit(toy_run.run, toys.ToyWorker, address=machines.address)
        while not (toy_run.folder.committed() or running.done()):
            time.sleep(0.1)
        nodes.append(machines.add_node(**NODE))
        outcome = running.result()
    assert (outcome.exit_code, outcome.done) == (0, 16)
    first, second = toy_run.events("worker_ready")
    assert first["pid"] != second["pid"]
    by_worker = {event["worker"] for event in toy_run.events("shard_done")}
    assert by_worker == {first["worker"], second["worker"]}
    for node in nodes:
        machines.remove_node(node)


def test_a_machine_on_which_no_worker_starts_is_avoided_and_the_other_does_the_work(
    machines: Any, toy_run: Any, toys: ModuleType
) -> None:
    good, bad = machines.add_node(**NODE), machines.add_node(**NODE)
    (toy_run.root / "in" / "bad_nodes").write_text(bad.node_id)
    toy_run.write(**{f"s{i:02d}": {"seconds": 1.0} for i in range(24)})
    toy_run.execution = Execution(engine="ray", workers=2)
    toy_run.rules = replace(toy_run.rules, workers=2)
    outcome = toy_run.run(toys.PickyWorker, address=machines.address)
    assert (outcome.exit_code, outcome.done) == (0, 24)
    failed = [e for e in toy_run.events("worker_died") if "no such accelerator" in e["reason"]]
    assert len(failed) == 3
    assert [event["node"] for event in toy_run.events("machine_avoided")] == [bad.node_id]
    machines.remove_node(good)
    machines.remove_node(bad)
