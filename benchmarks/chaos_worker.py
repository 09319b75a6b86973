"""A worker with a sleeping model for which some shards are poison, by their names, and one driver
run of it: `python -m benchmarks.chaos_worker ORDER` for `benchmarks.chaos`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.sleeping_model import TIMESTEP, Sleep, SleepingFlow, Trace
from cluster.runner import run
from cluster.scheduling.orders import Rules
from lib.ledger.run_folder import RunFolder
from lib.receipts import Failure, ShardReport, ShardTask
from lib.records import Sample
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.located import located
from pipelines.run_claim import run_claim
from pipelines.shard_flow import Counted, Products
from pipelines.worker import ShardWorker
from pipelines.worker_flow import FlowMaker
from tasks.stored_latents import InvertStage

DEEDS = ("exit", "segfault", "raise", "hang")
_WATCHED_IMAGE = 2
"""The deed is done after so many images."""


@dataclass(frozen=True, slots=True)
class Order:
    """One driver run, or one orphan's work."""

    shards: tuple[str, ...]
    folder: str
    """Output: a path or URL."""
    notes: str
    """A folder with a file a shard, one line for every time it was begun."""
    address: str
    """Of a Ray head; "" for an orphan, which works without any driver."""
    workers: int
    image_s: float
    side: int
    max_attempts: int
    stall_timeout_s: float

    @property
    def config(self) -> RunConfig:
        """A pipeline without discovery, on a checkpoint that only names it."""
        return RunConfig.model_validate(
            {
                "input": {"shards": list(self.shards)},
                "invert": {"batch_size": 4},
                "discover": {"method": "none"},
                "edit": {"method": "sdedit", "sdedit": {"timesteps": [TIMESTEP]}},
                "output": {"folder": self.folder},
                "execution": {"engine": "ray", "workers": self.workers, "device": "cpu"},
            }
        )


class ChaosFlow(SleepingFlow):
    """Does what a poison shard's name says."""

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        deed = shard.partition("-")[0]
        poisoned = _poisoned(deed, samples) if deed in DEEDS else samples
        return super().__call__(shard, invert, poisoned, reject, counted)


def _poisoned(deed: str, samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number == _WATCHED_IMAGE:
            match deed:
                case "exit":
                    os._exit(1)
                case "segfault":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "raise":
                    raise ValueError("a shard that raises")
                case _:
                    time.sleep(3600)
        yield sample


class ChaosWorker(ShardWorker):
    """The real worker around that flow; notes every shard that it begins."""

    def __init__(self, sleep: Sleep, notes: str, config_json: str, fingerprint: str) -> None:
        self._notes = Path(notes)
        super().__init__(config_json, fingerprint, partial(_load, sleep))

    def run(self, task: ShardTask) -> ShardReport:
        """As `ShardWorker.run`."""
        with (self._notes / task.shard).open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().run(task)


def _load(sleep: Sleep, config: RunConfig, folder: RunFolder, backlog: Backlog) -> FlowMaker:
    traces: dict[str, Trace] = {}
    return lambda config: ChaosFlow(config, sleep, traces, backlog)


def drive(order: Order) -> int:
    """One driver run; its exit code."""
    rules = Rules(
        workers=order.workers,
        max_attempts=order.max_attempts,
        stall_timeout_s=order.stall_timeout_s,
        retry_pause_s=0.5,
    )
    outcome = run(
        order.config,
        address=order.address,
        factory=partial(ChaosWorker, sleep_of(order), order.notes),
        console=Console(stderr=True),
        rules=rules,
    )
    sys.stdout.write(f"{outcome.sentence}\n")
    return outcome.exit_code


def orphan(order: Order) -> int:
    """A worker whose driver is dead: it goes on writing into the run of another."""
    config = located(order.config)
    fingerprint = str(run_claim(config)["fingerprint"])
    worker = ChaosWorker(sleep_of(order), order.notes, config.model_dump_json(), fingerprint)
    for url in order.shards:
        worker.run(ShardTask(Path(url).stem, url, 1))
    return 0


def sleep_of(order: Order) -> Sleep:
    """What its model takes."""
    return Sleep(order.image_s, order.side, "")


def command(order: Order) -> list[str]:
    """What carries an order out in a process of its own."""
    return [sys.executable, "-m", "benchmarks.chaos_worker", json.dumps(asdict(order))]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    made = Order(**given | {"shards": tuple(given["shards"])})
    code = drive(made) if made.address else orphan(made)
    sys.stdout.flush()
    os._exit(code)
