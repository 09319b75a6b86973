"""A worker whose model sleeps instead of computing, as one does that computes on a GPU: the CPU is
free meanwhile. All else is the real worker: reading, decoding, encoding, commits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch

from lib.direction import WHOLE
from lib.files import row_kinds
from lib.ledger.run_folder import RunFolder
from lib.metrics.columns import FIXED
from lib.pixels import quantised
from lib.process_memory import peak_bytes, shared_bytes
from lib.receipts import ShardReport, ShardTask
from lib.records import Edit, Edited, Evaluated, Failure, Renoised, Sample, Score
from lib.regions import make_region
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.inversions import NoInversions
from pipelines.shard_flow import Counted, Products
from pipelines.worker import ShardWorker
from pipelines.worker_flow import FlowMaker
from pipelines.writing import ShardWriter
from tasks.stored_latents import InvertStage

TIMESTEP = 500


@dataclass(frozen=True, slots=True)
class Sleep:
    """What the model takes and makes."""

    image_s: float
    """Seconds an image."""
    side: int
    """Of its images, pixels."""
    traces: str
    """A folder for what every worker notes of every shard."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One shard in one worker; times of the machine's monotonic clock, seconds."""

    shard: str
    pid: int
    begun: float
    """The model took its first batch."""
    ended: float
    """The model was done with its last image."""
    images: int
    peak_bytes: int = 0
    """Resident, of the worker's process, when the shard was committed."""
    store_bytes: int = 0
    """Of Ray's object store, that the worker's process has touched."""
    committed: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the worker's process by then."""


class SleepingFlow:
    """Passes every image through as its own only edit, after the time that an edit takes: half of
    it for a whole batch at once, as inversion takes it, half image by image.
    """

    def __init__(
        self, config: RunConfig, sleep: Sleep, traces: dict[str, Trace], backlog: Backlog
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._traces = traces
        self._backlog = backlog
        self.image_size = sleep.side
        self.inversions = NoInversions()
        self._region = make_region(WHOLE, torch.ones(sleep.side, sleep.side))

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        writer = ShardWriter(
            self._config.output,
            injection="sdedit",
            window=(TIMESTEP, 0),
            inversion=0,
            schema=row_kinds.of_config(self._config.model_dump(mode="json")).schema,
            backlog=self._backlog,
        )
        begun, images = 0.0, 0
        size = self._config.invert.batch_size
        for _, batch in groupby(counted(samples), key=lambda s: s.index // size):
            items = list(batch)
            begun = begun or time.monotonic()
            time.sleep(self._sleep.image_s / 2 * len(items))
            for sample in items:
                started = time.monotonic()
                evaluated = self._evaluated(sample)  # on a GPU a part of the model's time
                time.sleep(max(0.0, self._sleep.image_s / 2 - (time.monotonic() - started)))
                writer.add(evaluated)
            images += len(items)
        self._traces[shard] = Trace(shard, os.getpid(), begun, time.monotonic(), images)

        def finish() -> Products:
            made, rows, _ = writer.finish()
            return Products(rows, images=made)

        return finish

    def _evaluated(self, sample: Sample) -> Evaluated:
        image_CHW = quantised(sample.image_CHW)
        edit = Edit(self._region, Renoised(TIMESTEP, 0.5, 0), image_CHW)
        edited = Edited(sample, image_CHW, 1, (edit,))
        metrics: dict[str, float | None] = dict.fromkeys(FIXED, 0.0)
        return Evaluated(edited, (Score(0, edit, metrics, None),), 1)


class SleepingWorker(ShardWorker):
    """The worker, which also notes what it did."""

    def __init__(self, sleep: Sleep, config_json: str, fingerprint: str) -> None:
        self._noted: dict[str, Trace] = {}
        self._folder = Path(sleep.traces)
        super().__init__(config_json, fingerprint, partial(_load, sleep, self._noted))

    def run(self, task: ShardTask) -> ShardReport:
        """As `ShardWorker.run`."""
        report = super().run(task)
        trace = dataclasses.replace(
            self._noted[task.shard],
            peak_bytes=peak_bytes(),
            store_bytes=shared_bytes(),
            committed=time.monotonic(),
            cpu_s=time.process_time(),
        )
        path = self._folder / f"{trace.pid}-{task.shard}.json"
        path.write_text(json.dumps(dataclasses.asdict(trace)))
        return report


def _load(
    sleep: Sleep, traces: dict[str, Trace], config: RunConfig, folder: RunFolder, backlog: Backlog
) -> FlowMaker:
    return lambda config: SleepingFlow(config, sleep, traces, backlog)


def read_traces(folder: str) -> list[Trace]:
    """Of all shards of a run."""
    return [Trace(**json.loads(p.read_text())) for p in sorted(Path(folder).glob("*.json"))]
