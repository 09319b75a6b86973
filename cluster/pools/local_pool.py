"""One worker in this process, two shards at once in two threads: the engine `local`.

A thread cannot be ended, so a killed worker is only forgotten: a new one is loaded beside it, and
should the old one still commit, create-only commits make that harmless.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.pools.protocol import (
    Event,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerBody,
    WorkerDied,
    WorkerFactory,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.verdicts import Raised, describe
from lib.receipts import ShardTask

_SHARDS_AT_ONCE = 2


@dataclass(slots=True)
class _Worker:
    number: int
    tasks: queue.SimpleQueue[ShardTask | None] = field(default_factory=queue.SimpleQueue)
    body: WorkerBody | None = None
    """Set before WorkerReady."""
    gone: threading.Event = field(default_factory=threading.Event)
    busy: set[int] = field(default_factory=set)
    """Idents of the threads that run the worker's code now."""


class LocalPool:
    """See `cluster.pools.protocol.Pool`; `output_folder` tells errors of the output from those of
    the shard.
    """

    def __init__(
        self, factory: WorkerFactory, config_json: str, fingerprint: str, output_folder: str
    ) -> None:
        self._factory = factory
        self._arguments = (config_json, fingerprint)
        self._output_folder = output_folder
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._abandoned: list[_Worker] = []

    def start(self, worker: int) -> None:
        """Load a worker in a thread of its own, so that signals are heard meanwhile."""
        self._workers[worker] = _Worker(worker)
        self._in_thread(self._load, self._workers[worker])

    def submit(self, worker: int, task: ShardTask) -> None:
        """Hand a shard to one of the worker's two threads."""
        self._workers[worker].tasks.put(task)

    def cancel(self, worker: int, shard: str) -> None:
        """Told directly: it is the same process."""
        held = self._workers.get(worker)
        if held is not None and held.body is not None:
            held.body.cancel(shard)

    def avoid(self, node: str) -> int:
        """There is no other machine."""
        return 0

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """What the threads reported."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=timeout_s))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def heartbeats(self) -> Mapping[int, int]:
        """Asked directly: it is the same process."""
        return {
            number: worker.body.images_done()
            for number, worker in self._workers.items()
            if worker.body is not None
        }

    def kill(self, worker: int, reason: str) -> None:
        """Forget a worker: its threads run on until they notice."""
        gone = self._workers.pop(worker, None)
        if gone is None:
            return
        self._forget(gone)
        if gone.body is None:
            raised = Raised("Stalled", reason, "", "retry")
            self._events.put(WorkerFailedToStart(worker, raised))
        else:
            self._events.put(WorkerDied(worker, reason, node_lost=False))

    def let_go(self, worker: int) -> None:
        """Send its idle threads home."""
        self._forget(self._workers.pop(worker))

    def close(self) -> bool:
        """Send the idle threads home."""
        while self._workers:
            self._forget(self._workers.popitem()[1])
        return not any(worker.busy for worker in self._abandoned)

    def _forget(self, worker: _Worker) -> None:
        worker.gone.set()
        for _ in range(_SHARDS_AT_ONCE):
            worker.tasks.put(None)
        self._abandoned.append(worker)

    def _load(self, worker: _Worker) -> None:
        here = (socket.gethostname(), os.getpid())
        self._events.put(WorkerPlaced(worker.number, *here, node="here"))
        worker.busy.add(threading.get_ident())
        try:
            worker.body = self._factory(*self._arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of the worker's code
            raised = describe(error, self._output_folder)
            if not worker.gone.is_set():
                self._events.put(WorkerFailedToStart(worker.number, raised))
            return
        finally:
            worker.busy.discard(threading.get_ident())
        for _ in range(_SHARDS_AT_ONCE):
            self._in_thread(self._serve, worker, worker.body)
        if not worker.gone.is_set():
            self._events.put(WorkerReady(worker.number, *here))

    def _serve(self, worker: _Worker, body: WorkerBody) -> None:
        while (task := worker.tasks.get()) is not None and not worker.gone.is_set():
            self._events.put(ShardStarted(worker.number, task))
            worker.busy.add(threading.get_ident())
            try:
                event: Event = ShardFinished(worker.number, task, body.run(task))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the border of the worker's code
                event = ShardRaised(worker.number, task, describe(error, self._output_folder))
            finally:
                worker.busy.discard(threading.get_ident())
            self._events.put(event)

    @staticmethod
    def _in_thread(target: object, *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()  # type: ignore[arg-type]
