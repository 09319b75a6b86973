"""One run of the sleeping model by the real driver, in a process of its own:
`python -m benchmarks.engine_run ORDER`, for `benchmarks.engine`. Prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Literal

import yaml
from rich.console import Console

from benchmarks.sleeping_model import Sleep, SleepingWorker, Trace, read_traces
from cluster.events import read_events
from cluster.runner import run
from lib.ledger.run_folder import RunFolder
from lib.process_memory import shared_bytes
from pipelines.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Order:
    """What one run is to do."""

    engine: Literal["local", "ray"]
    workers: int
    shards: tuple[str, ...]
    checkpoint: str
    """Names the model and its size; the weights are not used."""
    folder: str
    """Where all goes; empty."""
    image_s: float
    side: int
    format: str
    batch: int = 8
    begun: float = 0.0
    """When its process was started, on the machine's monotonic clock."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run took."""

    images: int
    steady: float
    """Wall time over pure model time, mean over workers: from when a worker's model took its first
    shard to when it let go of its last one, over its images times the seconds of one.
    """
    images_per_s: float
    """Of all workers together, each over its own steady time."""
    wait_share: float
    """(wait_s + idle_s) / (model_s + idle_s) over all receipts."""
    first_image_s: float
    """From the start of the process to the model's first batch."""
    peak_bytes: int
    """Resident, of the largest worker."""
    store_bytes: int
    """Of Ray's object store, that the driver and the workers have touched."""
    image_cpu_s: float
    """CPU time of a worker's process for one more image."""


def config_of(order: Order) -> RunConfig:
    """The run's config: the pipeline without discovery."""
    return RunConfig.model_validate(
        {
            "input": {"shards": list(order.shards)},
            "model": {"checkpoint": order.checkpoint},
            "invert": {"batch_size": order.batch},
            "discover": {"method": "none"},
            "edit": {"method": "sdedit", "batch_size": order.batch},
            "output": {"folder": f"{order.folder}/run", "format": order.format},
            "execution": {"engine": order.engine, "workers": order.workers, "device": "cpu"},
        }
    )


def measure(order: Order) -> Measured:
    """Do it in this process."""
    traces = Path(order.folder) / "traces"
    traces.mkdir(parents=True)
    config = config_of(order)
    factory = partial(SleepingWorker, Sleep(order.image_s, order.side, str(traces)))
    with _ray(order):
        outcome = run(config, factory=factory, console=Console(quiet=True))
        touched = shared_bytes()
    if outcome.exit_code:
        raise SystemExit(f"the run failed: {outcome.sentence}")
    events = read_events(RunFolder(config.output.folder))
    reports = [event["report"] for event in events if event["event"] == "shard_done"]
    waited = sum(r["wait_s"] + r["idle_s"] for r in reports)
    held = sum(r["model_s"] + r["idle_s"] for r in reports)
    found = read_traces(str(traces))
    spans = list(_spans(found))
    return Measured(
        images=sum(t.images for t in found),
        steady=mean(span / (images * order.image_s) for span, images in spans),
        images_per_s=sum(images / span for span, images in spans),
        wait_share=waited / held,
        first_image_s=min(t.begun for t in found) - order.begun,
        peak_bytes=max(t.peak_bytes for t in found),
        store_bytes=touched + sum({t.pid: t.store_bytes for t in found}.values()),
        image_cpu_s=mean(_image_cpu_s(found)),
    )


@contextmanager
def _ray(order: Order) -> Iterator[None]:
    """Where the run is on Ray: one of this machine's own, which outlives it for a moment, because
    what a process has touched of the store is not known any more once it has left.
    """
    if order.engine == "local":
        yield
        return
    from cluster.pools.ray_session import Resources, ray_session

    with ray_session("local", order.workers, Resources(gpus=0.0, threads=1)):
        yield


def _spans(traces: list[Trace]) -> Iterator[tuple[float, int]]:
    """Steady seconds and images of every worker."""
    for pid in {t.pid for t in traces}:
        own = [t for t in traces if t.pid == pid]
        yield max(t.ended for t in own) - min(t.begun for t in own), sum(t.images for t in own)


def _image_cpu_s(traces: list[Trace]) -> Iterator[float]:
    """Of every worker: from its first commit to its last."""
    for pid in {t.pid for t in traces}:
        first, *others = sorted((t for t in traces if t.pid == pid), key=lambda t: t.committed)
        if others:
            yield (others[-1].cpu_s - first.cpu_s) / sum(t.images for t in others)


def in_process_of_its_own(order: Order) -> Measured:
    """As `measure`, from the start of a fresh Python."""
    begun = replace(order, begun=time.monotonic())
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine_run", json.dumps(asdict(begun))],
        capture_output=True, text=True, check=False, env=_environment(),
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return Measured(**json.loads(ran.stdout.splitlines()[-1]))


def again_s(order: Order) -> float:
    """Seconds that `deltah run` takes of a run of which nothing is left to do."""
    config = Path(order.folder) / "run.yaml"
    config.write_text(yaml.safe_dump(config_of(order).model_dump(mode="json")))
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "cluster", "run", str(config)],
        capture_output=True, check=True, env=_environment(),
    )  # fmt: skip
    return time.monotonic() - begun


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Order(**json.loads(sys.argv[1]))))))
