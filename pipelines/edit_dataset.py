"""The pipeline of one shard: read, invert, segment, discover, edit, write, commit."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

from lib import storage
from lib.commit import ShardResult, commit
from lib.receipts import ShardReport, ShardTask
from lib.run_folder import RunFolder
from lib.samples import read_shard
from pipelines.config import MaskFile, RunConfig
from pipelines.reading import SampleReader
from pipelines.stages import Stages
from pipelines.writing import ShardWriter

T = TypeVar("T")


class EditDataset:
    """Turns input shards into committed results.

    Two calls of `run_shard` may overlap: reading, decoding, encoding and writing run freely, the
    model is held by one shard at a time (`turn`), so that it never waits for another shard's input
    or output.
    """

    def __init__(
        self,
        config: RunConfig,
        fingerprint: str,
        folder: RunFolder,
        stages: Stages,
        *,
        pool: Executor,
        progress: Callable[[], None],
    ) -> None:
        self._config = config
        self._fingerprint = fingerprint
        self._folder = folder
        self._stages = stages
        self._pool = pool
        self._progress = progress
        """Called after every stage of every image, from the shard's thread."""
        self._turn = threading.Lock()
        self._claimed = frozenset(
            r.file for r in config.segment.regions.values() if isinstance(r, MaskFile)
        )

    def run_shard(self, task: ShardTask) -> ShardReport:
        """Bring one shard to a committed state.

        Raises:
            FileNotFoundError: the shard is not there.
            lib.storage.ObjectTooLargeError: it is larger than `input.max_shard_bytes`.
            lib.samples.ShardDamage: it is no whole tar.
            OSError: the output could not be written; nothing of this shard exists then.
        """
        started = time.perf_counter()
        limit = self._config.input.max_shard_bytes
        data = storage.read_bytes(task.url, max_bytes=limit)
        contents = read_shard(data, task.shard, max_bytes=limit, salvage=self._config.input.salvage)
        failures = list(contents.failures)
        reader = self._reader()
        writer = self._writer()
        stages = self._stages
        read_s = time.perf_counter() - started
        with self._turn:
            held = time.perf_counter()
            samples = reader(contents.samples, failures.append)
            inverted = self._counted(stages.invert(samples, failures.append))
            segmented = stages.segment(inverted, failures.append)
            discovered = self._counted(stages.discover(segmented, failures.append))
            for edited in self._counted(stages.edit(discovered, failures.append)):
                writer.add(edited)
            model_s = time.perf_counter() - held
        closing = time.perf_counter()
        images, edits, directions = writer.finish()
        outcome = commit(
            self._folder,
            ShardResult(
                shard=task.shard,
                n_in=contents.n_in,
                input_size=len(data),
                input_sha256=hashlib.sha256(data).hexdigest(),
                images=images,
                edits=edits,
                directions=directions,
                failures=tuple(failures),
            ),
            self._fingerprint,
        )
        n_err = sum(f.index is not None for f in failures)
        return ShardReport(
            shard=task.shard,
            attempt=task.attempt,
            outcome=outcome,
            n_in=contents.n_in,
            n_ok=contents.n_in - n_err,
            n_err=n_err,
            n_edits=edits.num_rows,
            bytes_in=len(data),
            bytes_out=len(images),
            read_s=read_s,
            model_s=model_s,
            wait_s=reader.waited_s,
            write_s=time.perf_counter() - closing,
            host=socket.gethostname(),
        )

    def _reader(self) -> SampleReader:
        return SampleReader(
            self._config.input,
            image_size=self._stages.image_size,
            claimed=self._claimed,
            fingerprint=self._fingerprint,
            pool=self._pool,
            ahead=3 * self._config.invert.batch_size,
        )

    def _writer(self) -> ShardWriter:
        return ShardWriter(
            self._config.output,
            injection=self._config.edit.injection,
            window=self._stages.edit.edited_timesteps,
            inversion=self._stages.invert.evaluations,
            pool=self._pool,
        )

    def _counted(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self._progress()
            yield item
