"""A run of toy shards in a process of its own, so that signals can be sent to it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from cluster.runner import run
from pipelines.config_file import load_config


def main() -> None:
    """Arguments: folder of a toy run, engine, changes of the config."""
    root, engine = Path(sys.argv[1]), sys.argv[2]
    spec = importlib.util.spec_from_file_location(
        "toy_worker", Path(__file__).parent / "toy_worker.py"
    )
    assert spec is not None
    assert spec.loader is not None
    toys = importlib.util.module_from_spec(spec)
    sys.modules["toy_worker"] = toys
    spec.loader.exec_module(toys)
    if engine == "ray":
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(toys)
    config = load_config(
        "demo",
        [
            f"input.shards=[{root}/in/*.tar]",
            f"output.folder={root}/run",
            f"model.checkpoint={root}/model",
            "evaluate.attributes=null",  # toys measure nothing
            f"execution.engine={engine}",
            f"execution.workers={2 if engine == 'ray' else 1}",
            *sys.argv[3:],
        ],
    )
    outcome = run(config, factory=toys.ToyWorker)
    sys.stdout.write(f"{outcome.sentence}\n")
    sys.stdout.flush()
    os._exit(outcome.exit_code)


main()
