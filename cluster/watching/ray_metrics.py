"""A driver run as Prometheus metrics, exported by every Ray node with `ray_` before each name.

All is counted in the driver from receipts, so nothing runs beside the model. No label grows with
the run: shards and workers are never named.
"""

from __future__ import annotations

from typing import Any

from ray.util import metrics

from cluster.pools.protocol import ShardFinished
from cluster.scheduling.orders import Counts
from cluster.watching.observer import Noted
from cluster.watching.tally import Tally

COUNTERS = {
    "deltah_samples_total": ("Samples of committed shards.", ("status",)),
    "deltah_shards_total": ("Shards that ended.", ("status",)),
    "deltah_edits_total": ("Edited images.", ()),
    "deltah_bytes_total": ("Bytes of shards read, and of images written.", ("dir",)),
    "deltah_gpu_busy_seconds_total": ("Seconds in which models computed.", ()),
    "deltah_gpu_wait_seconds_total": ("Seconds in which models waited for images or encoders.", ()),
    "deltah_worker_ready_seconds_total": ("Seconds for which workers stood ready.", ()),
    "deltah_attempts_total": ("Shards begun, by what became of them.", ("verdict",)),
    "deltah_worker_deaths_total": ("Workers that ended unasked.", ("cause",)),
}
"""Name -> description, and labels beside `run`."""
GAUGES = {
    "deltah_shards": ("Shards of this driver by state.", ("state",)),
    "deltah_workers": ("Workers by state.", ("state",)),
}
HISTOGRAMS = {"deltah_stage_seconds": ("Seconds a shard spent in a stage.", ("stage",))}
"""Ray exports the middles of their buckets as `_sum`: only the buckets are true."""
_BOUNDS_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0]


class RayMetrics:
    """See `cluster.watching.observer.Observer`. Ray must be connected; the label `run` keeps the
    runs of a cluster apart.
    """

    def __init__(self, run: str, tally: Tally) -> None:
        self._tally = tally
        self._metrics: dict[str, Any] = {}
        self._told: dict[tuple[str, ...], float] = {}
        for kind, made in ((metrics.Counter, COUNTERS), (metrics.Gauge, GAUGES)):
            for name, (description, labels) in made.items():
                self._metrics[name] = kind(name, description, ("run", *labels))
        for name, (description, labels) in HISTOGRAMS.items():
            keys = ("run", *labels)
            self._metrics[name] = metrics.Histogram(name, description, _BOUNDS_S, keys)
        for metric in self._metrics.values():
            metric.set_default_tags({"run": run})

    def noted(self, fact: Noted, now: float) -> None:
        """What is distributed, and not only added up."""
        if isinstance(fact, ShardFinished):
            for stage in ("read", "model", "write"):
                seconds = getattr(fact.report, f"{stage}_s")
                self._metrics["deltah_stage_seconds"].observe(seconds, {"stage": stage})

    def tick(self, counts: Counts, now: float) -> None:
        """Bring every number up to that of the tally."""
        work = self._tally.upto(now)
        reach = self._reach
        reach("deltah_samples_total", work.images - work.errors, status="ok")
        reach("deltah_samples_total", work.errors, status="error")
        reach("deltah_shards_total", work.shards, status="done")
        reach("deltah_shards_total", work.given_up, status="quarantined")
        reach("deltah_edits_total", work.edits)
        reach("deltah_bytes_total", work.bytes_in, dir="in")
        reach("deltah_bytes_total", work.bytes_out, dir="out")
        reach("deltah_gpu_busy_seconds_total", work.busy_s)
        reach("deltah_gpu_wait_seconds_total", work.wait_s + work.idle_s)
        reach("deltah_worker_ready_seconds_total", work.ready_s)
        reach("deltah_attempts_total", work.shards, verdict="committed")
        reach("deltah_attempts_total", work.beaten, verdict="beaten")
        reach("deltah_attempts_total", work.lost, verdict="worker_died")
        reach("deltah_attempts_total", work.cancelled, verdict="cancelled")
        for verdict, count in work.failures.items():
            reach("deltah_attempts_total", count, verdict=verdict)
        for cause, count in work.deaths.items():
            reach("deltah_worker_deaths_total", count, cause=cause.replace(" ", "_"))
        for state in ("waiting", "in_flight", "done", "quarantined"):
            self._metrics["deltah_shards"].set(getattr(counts, state), {"state": state})
        workers = self._metrics["deltah_workers"]
        workers.set(self._tally.ready_workers, {"state": "ready"})
        workers.set(self._tally.loading_workers, {"state": "loading"})

    def _reach(self, name: str, value: float, **labels: str) -> None:
        """Raise a counter to `value`; one that was never raised is not there."""
        key = (name, *labels.values())
        more = value - self._told.get(key, 0.0)
        if more > 0:
            self._metrics[name].inc(more, labels)
            self._told[key] = value
