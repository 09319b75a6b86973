"""A machine that goes away mid-run is nobody's fault: its shards are done elsewhere, uncharged."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
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


def test_shards_of_a_lost_machine_are_done_elsewhere_and_not_charged(
    machines: Any, toy_run: Any, toys: ModuleType
) -> None:
    options = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    stays, leaves = machines.add_node(**options), machines.add_node(**options)
    toy_run.write(**{f"s{i}": {"seconds": 2.0} for i in range(10)})
    toy_run.execution = Execution(engine="ray", workers=2)
    toy_run.rules = replace(toy_run.rules, workers=2, max_attempts=1)

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
