"""What an image costs a worker: measured by a probe, or by a run that has been begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Literal

from pipelines.worker_threads import ENCODERS

_NAMED_HOSTS = 3


@dataclass(frozen=True, slots=True)
class ImageCost:
    """Of one worker like those that were measured; nothing is said of any other card."""

    source: Literal["probe", "events"]
    measured: str
    """By what and on what, in words."""
    on_gpu: bool | None
    """None where events do not tell."""
    images: int
    """That were measured."""
    model_s: float
    """In which an image holds the model."""
    start_s: float
    """Until a worker is ready: libraries, weights, calibration."""
    read_s: float
    """Of a shard, before the model can begin with it."""
    write_s: float
    """An image, after the model is done with the shard: what is left to encode, tar, PUT."""
    encode_s: float = 0.0
    """An image, of one core; 0 where it is not known."""
    image_bytes: float | None = None
    """Of the edited images, an image; None where the plan knows better."""

    @property
    def image_s(self) -> float:
        """Seconds of a worker an image, in the middle of many: the next shard is read, and the one
        before encoded and written, while the model works.
        """
        return max(self.model_s, self.encode_s / ENCODERS)

    @property
    def ends_s(self) -> float:
        """Beside the images, once a worker: it is started, and reads its first shard."""
        return self.start_s + self.read_s


def cost_of_events(events: Iterable[Mapping[str, Any]]) -> ImageCost | None:
    """From the events of a run's drivers, each driver's in a row; None without an image done.

    Shards that another writer committed first count too: they have cost as much.
    """
    starts: list[float] = []
    begun: datetime | None = None
    receipts: list[Mapping[str, Any]] = []
    for event in events:
        if event["event"] == "run_started":
            begun = datetime.fromisoformat(event["time"])
        elif event["event"] == "worker_ready" and begun is not None:
            starts.append((datetime.fromisoformat(event["time"]) - begun).total_seconds())
            begun = None  # later ones may have waited for a machine
        elif event["event"] == "shard_done":
            receipts.append(event["report"])
    images = sum(int(receipt["n_in"]) for receipt in receipts)
    if not images:
        return None
    hosts = sorted({str(receipt["host"]) for receipt in receipts})
    more = len(hosts) - _NAMED_HOSTS
    names = ", ".join(hosts[:_NAMED_HOSTS]) + (f" and {more} more" if more > 0 else "")
    return ImageCost(
        source="events",
        measured=f"by this run's workers on {names}: {images:,} images of {len(receipts):,} shards",
        on_gpu=None,
        images=images,
        model_s=_sum(receipts, "model_s") / images,
        start_s=median(starts) if starts else 0.0,
        read_s=_sum(receipts, "read_s") / len(receipts),
        write_s=_sum(receipts, "write_s") / images,
        image_bytes=_sum(receipts, "bytes_out") / images,
    )


def _sum(receipts: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(float(receipt[name]) for receipt in receipts)
