"""One shard from its URL to its commit, whatever the pipeline: read it, decode ahead, let the
stages work, commit what they made.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from lib.files import storage
from lib.files.latent_files import StoredLatents
from lib.files.samples import ShardContents, read_shard
from lib.ledger.commit import ShardResult, commit
from lib.ledger.run_folder import RunFolder
from lib.models.kernels import synchronise
from lib.out_of_memory import MemoryExhaustedError, is_out_of_memory
from lib.receipts import Failure, ShardReport, ShardTask
from pipelines.backlog import Backlog
from pipelines.cancellation import ShardsInHand, Stoppable
from pipelines.config import RunConfig
from pipelines.inversions import read_latents
from pipelines.reading import Decoding, SampleReader
from pipelines.shard_flow import Products
from pipelines.side_files import side_files
from pipelines.turn import ModelTurn
from pipelines.worker_flow import WorkerFlow
from pipelines.worker_threads import BATCHES_AHEAD

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Input:
    """A shard as it was read."""

    name: str
    size: int
    sha256: str
    contents: ShardContents
    latents: StoredLatents | None
    """What another run has stored of it, where that is read."""


@dataclass(frozen=True, slots=True)
class _Worked:
    """A shard that the model is done with."""

    finish: Callable[[], Products]
    latents: Callable[[], bytes]
    failures: list[Failure]
    limit: int | None
    """The largest batch that memory allowed; None for those of the config."""


class ShardPipeline:
    """Turns input shards into committed results.

    Two calls of `run_shard` may overlap. Only the model is held by one shard at a time (`turn`):
    the next shard is read and its first batches are decoded while the model works on the one
    before, whose last images are encoded, and which is committed, while the model goes on.
    """

    def __init__(
        self,
        config: RunConfig,
        fingerprint: str,
        pixels: str,
        folder: RunFolder,
        flow: WorkerFlow,
        *,
        decoders: Executor,
        backlog: Backlog,
        progress: Callable[[], None],
    ) -> None:
        self._config = config
        self._fingerprint = fingerprint
        self._folder = folder
        self._flow = flow
        self._backlog = backlog
        """Where the flow gives its images to encode."""
        self._progress = progress
        """Called after every stage of every image, from the shard's thread."""
        path = config.invert.latents
        self._latents = None if path is None else RunFolder(path)
        self._reader = SampleReader(
            config.input,
            image_size=flow.current.image_size,
            claimed=side_files(config),
            fingerprint=pixels,  # without what only measures: the seeds come from it
            pool=decoders,
            ahead=BATCHES_AHEAD * config.invert.batch_size,
        )
        self._turn = ModelTurn()
        self._in_hand = ShardsInHand()

    def cancel(self, shard: str) -> None:
        """Let a `run_shard` of this shard raise ShardCancelled, from another thread."""
        self._in_hand.stop(shard)

    def run_shard(self, task: ShardTask) -> ShardReport:
        """Bring one shard to a committed state.

        Raises:
            ShardCancelled: the driver does not want it any more; nothing of it is committed.
            FileNotFoundError: the shard is not there.
            lib.files.storage.ObjectTooLargeError: it is larger than `input.max_shard_bytes`.
            lib.files.samples.ShardDamage: it is no whole tar, or the latents to be read are not
                its own.
            lib.out_of_memory.MemoryExhaustedError: the model does not fit with batches of one.
            OSError: the output could not be written; nothing of this shard exists then.
        """
        with self._in_hand.taken(task.shard) as stoppable:
            return self._run(task, stoppable)

    def _run(self, task: ShardTask, stoppable: Stoppable) -> ShardReport:
        started = time.perf_counter()
        shard = self._read(task)
        decoding = self._reader.begin(shard.contents.samples)
        try:
            decoding.wait(self._config.invert.batch_size)
            read_s = time.perf_counter() - started
            with self._turn.taken() as idle_s:
                stoppable.check()
                held, behind_s = time.perf_counter(), self._backlog.waited_s
                worked = self._work(shard, decoding, stoppable)
                model_s = time.perf_counter() - held
                wait_s = decoding.waited_s + self._backlog.waited_s - behind_s
        finally:
            decoding.close()
        closing = time.perf_counter()
        made = worked.finish()
        result = ShardResult(
            shard=shard.name,
            n_in=shard.contents.n_in,
            input_size=shard.size,
            input_sha256=shard.sha256,
            rows=made.rows,
            images=made.images,
            directions=made.directions,
            statistics=made.statistics,
            latents=worked.latents(),
            failures=tuple(worked.failures),
            oom_batch=worked.limit,
            dropped=made.dropped,
        )
        outcome = commit(self._folder, result, self._fingerprint)
        n_err = sum(f.index is not None for f in worked.failures)
        return ShardReport(
            shard=shard.name,
            attempt=task.attempt,
            outcome=outcome,
            n_in=result.n_in,
            n_ok=result.n_in - n_err,
            n_err=n_err,
            n_edits=made.rows.num_rows if made.images else 0,
            n_directions=0 if made.directions is None else made.directions.num_rows,
            bytes_in=shard.size,
            bytes_out=len(made.images),
            read_s=read_s,
            model_s=model_s,
            wait_s=wait_s,
            idle_s=idle_s,
            write_s=time.perf_counter() - closing,
            host=socket.gethostname(),
            oom_batch=worked.limit,
            error_kinds=dict(Counter(failure.kind for failure in worked.failures)),
        )

    def _read(self, task: ShardTask) -> _Input:
        limit = self._config.input.max_shard_bytes
        data = storage.read_bytes(task.url, max_bytes=limit)
        contents = read_shard(data, task.shard, max_bytes=limit, salvage=self._config.input.salvage)
        sha256 = hashlib.sha256(data).hexdigest()
        latents = None
        if self._latents is not None:
            latents = read_latents(self._latents, task.shard, sha256)
        return _Input(task.shard, len(data), sha256, contents, latents)

    def _work(self, shard: _Input, decoding: Decoding, stoppable: Stoppable) -> _Worked:
        """Through the stages; from the shard's start again, with smaller batches, whenever memory
        runs out. Called with the model held.
        """
        while True:
            try:
                return self._try(shard, decoding, stoppable)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                why = str(error) or type(error).__name__
                if not self._flow.can_shrink:
                    self._flow.drop()
                    raise MemoryExhaustedError(
                        f"out of memory even with batches of one: {why} Expected room for the model"
                        " and the activations of one image; take a larger device, fewer workers on"
                        " it, or a smaller model"
                    ) from error
            # Behind the handler: until then the error's frames hold the tensors of the failed try.
            self._flow.shrink(why)
            decoding.restart()

    def _try(self, shard: _Input, decoding: Decoding, stoppable: Stoppable) -> _Worked:
        flow = self._flow.current
        inversion = flow.inversions.of_shard(shard.latents)
        failures = list(shard.contents.failures)
        finish = flow(
            shard.name,
            inversion.invert,
            stoppable.through(decoding.samples(failures.append)),
            failures.append,
            self._counted,
        )
        synchronise()
        return _Worked(finish, inversion.finish, failures, self._flow.limit)

    def _counted(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self._progress()
            yield item
