"""The Ray actor: a process around one worker, whose errors leave it as records, not exceptions."""

from __future__ import annotations

import os
import socket

import ray

from cluster.pools.protocol import WorkerBody, WorkerFactory
from cluster.scheduling.verdicts import Raised, describe
from lib.receipts import ShardReport, ShardTask

CONCURRENCY = {"shards": 2, "control": 1}
"""Two shards overlap; the heartbeat answers while both run."""


class WorkerProcess:
    """See `cluster.pools.protocol.WorkerBody` for what the factory makes."""

    def __init__(
        self, factory: WorkerFactory, config_json: str, fingerprint: str, output_folder: str
    ) -> None:
        self._factory = factory
        self._arguments = (config_json, fingerprint)
        self._output_folder = output_folder
        self._body: WorkerBody | None = None

    @ray.method(concurrency_group="control")
    def place(self) -> tuple[str, int, str]:
        """Host name, process id and Ray node: the process is up."""
        return socket.gethostname(), os.getpid(), ray.get_runtime_context().get_node_id()

    @ray.method(concurrency_group="shards")
    def load(self) -> Raised | None:
        """Make the worker; None when it is ready."""
        try:
            self._body = self._factory(*self._arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of the worker's code
            return describe(error, self._output_folder)
        return None

    @ray.method(concurrency_group="control")
    def accept(self) -> bool:
        """The process lives and will take a shard now."""
        return self._body is not None

    @ray.method(concurrency_group="shards")
    def run(self, task: ShardTask) -> ShardReport | Raised:
        """Bring one shard to a committed state."""
        if self._body is None:
            raise RuntimeError("run was called before load")
        try:
            return self._body.run(task)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of the worker's code
            return describe(error, self._output_folder)

    @ray.method(concurrency_group="control")
    def images_done(self) -> int:
        """The heartbeat."""
        return 0 if self._body is None else self._body.images_done()

    @ray.method(concurrency_group="control")
    def cancel(self, shard: str) -> None:
        """Let a `run` of this shard raise ShardCancelled."""
        if self._body is not None:
            self._body.cancel(shard)
