"""What all pipelines share of one shard: read it, let the stages work, commit what they made."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa

from lib.files import storage
from lib.files.samples import read_shard
from lib.ledger.commit import ShardResult, commit
from lib.ledger.run_folder import RunFolder
from lib.receipts import ShardReport, ShardTask
from lib.records import Failure, Sample
from pipelines.config import RunConfig
from pipelines.inversions import Inversions, NoInversions
from pipelines.reading import SampleReader
from pipelines.side_files import side_files
from tasks.stored_latents import InvertStage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Products:
    """What a flow made of one shard; see `lib.ledger.shard_result.ShardResult`."""

    rows: pa.Table
    images: bytes = b""
    directions: pa.Table | None = None
    statistics: bytes = b""
    dropped: Mapping[str, int] = field(default_factory=dict)


class Counted(Protocol):
    """Passes items through and counts each as a sign of life."""

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """The same items."""
        ...


class Flow(Protocol):
    """The stages of a pipeline, chained."""

    @property
    def image_size(self) -> int:
        """Side of the images that the model takes."""
        ...

    @property
    def inversions(self) -> Inversions | NoInversions:
        """Makes the invert stage of every shard."""
        ...

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """Bring all samples through the stages; what is returned does the rest without the
        model.
        """
        ...


class ShardPipeline:
    """Turns input shards into committed results.

    Two calls of `run_shard` may overlap: reading, decoding, encoding and writing run freely, the
    model is held by one shard at a time (`turn`), so that it never waits for another shard's input
    or output.
    """

    def __init__(
        self,
        config: RunConfig,
        fingerprint: str,
        pixels: str,
        folder: RunFolder,
        flow: Flow,
        *,
        pool: Executor,
        progress: Callable[[], None],
    ) -> None:
        self._config = config
        self._fingerprint = fingerprint
        self._pixels = pixels
        """The fingerprint without what only measures: the seeds come from it."""
        self._folder = folder
        self._flow = flow
        self._pool = pool
        self._progress = progress
        """Called after every stage of every image, from the shard's thread."""
        self._turn = threading.Lock()
        self._claimed = side_files(config)

    def run_shard(self, task: ShardTask) -> ShardReport:
        """Bring one shard to a committed state.

        Raises:
            FileNotFoundError: the shard is not there.
            lib.files.storage.ObjectTooLargeError: it is larger than `input.max_shard_bytes`.
            lib.files.samples.ShardDamage: it is no whole tar, or the latents to be read are not
                its own.
            OSError: the output could not be written; nothing of this shard exists then.
        """
        started = time.perf_counter()
        limit = self._config.input.max_shard_bytes
        data = storage.read_bytes(task.url, max_bytes=limit)
        contents = read_shard(data, task.shard, max_bytes=limit, salvage=self._config.input.salvage)
        sha256 = hashlib.sha256(data).hexdigest()
        inversion = self._flow.inversions.of_shard(task.shard, sha256)
        failures = list(contents.failures)
        reader = self._reader()
        read_s = time.perf_counter() - started
        with self._turn:
            held = time.perf_counter()
            samples = reader(contents.samples, failures.append)
            finish = self._flow(
                task.shard, inversion.invert, samples, failures.append, self._counted
            )
            model_s = time.perf_counter() - held
        closing = time.perf_counter()
        made = finish()
        result = ShardResult(
            shard=task.shard,
            n_in=contents.n_in,
            input_size=len(data),
            input_sha256=sha256,
            rows=made.rows,
            images=made.images,
            directions=made.directions,
            statistics=made.statistics,
            latents=inversion.finish(),
            failures=tuple(failures),
            dropped=made.dropped,
        )
        outcome = commit(self._folder, result, self._fingerprint)
        n_err = sum(f.index is not None for f in failures)
        return ShardReport(
            shard=task.shard,
            attempt=task.attempt,
            outcome=outcome,
            n_in=contents.n_in,
            n_ok=contents.n_in - n_err,
            n_err=n_err,
            n_edits=made.rows.num_rows if made.images else 0,
            n_directions=0 if made.directions is None else made.directions.num_rows,
            bytes_in=len(data),
            bytes_out=len(made.images),
            read_s=read_s,
            model_s=model_s,
            wait_s=reader.waited_s,
            write_s=time.perf_counter() - closing,
            host=socket.gethostname(),
            error_kinds=dict(Counter(failure.kind for failure in failures)),
        )

    def _reader(self) -> SampleReader:
        return SampleReader(
            self._config.input,
            image_size=self._flow.image_size,
            claimed=self._claimed,
            fingerprint=self._pixels,
            pool=self._pool,
            ahead=3 * self._config.invert.batch_size,
        )

    def _counted(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self._progress()
            yield item
