"""Workers as Ray actors, the engine `ray`: only orders and receipts travel, Ray places workers.

An actor is never restarted by Ray: a new one is made instead, so that no call can be lost in a
restart. Before every shard the worker must answer `accept`, and only then the shard counts as
started: a call to a process that is dead already costs nobody an attempt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    RayError,
    RaySystemError,
    RpcError,
)

from cluster.pools.protocol import (
    ClusterLostError,
    Event,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFactory,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.pools.ray_actor import CONCURRENCY, WorkerProcess
from cluster.pools.ray_deaths import Death, Inquests, sentence
from cluster.pools.ray_session import Resources
from cluster.scheduling.verdicts import Raised
from lib.receipts import ShardTask

_HEARTBEAT_S = 2.0


@dataclass(slots=True)
class _Actor:
    handle: Any
    host: str = ""
    pid: int = 0
    node: str | None = None
    ready: bool = False
    images: int = 0
    beat_due: float = 0.0
    calls: set[Any] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Call:
    kind: Literal["place", "load", "accept", "run", "beat"]
    worker: int
    task: ShardTask | None = None


class RayPool:
    """See `cluster.pools.protocol.Pool`. Ray must be connected."""

    def __init__(
        self,
        factory: WorkerFactory,
        config_json: str,
        fingerprint: str,
        output_folder: str,
        resources: Resources,
        environment: Mapping[str, str],
    ) -> None:
        self._arguments = (factory, config_json, fingerprint, output_folder)
        remote: Any = ray.remote  # its annotations leave concurrency_groups out
        self._actor_class = remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups=CONCURRENCY,
            scheduling_strategy="SPREAD",
            runtime_env={
                "env_vars": {"OMP_NUM_THREADS": str(resources.threads), **environment},
            },
        )(WorkerProcess)
        self._actors: dict[int, _Actor] = {}
        self._calls: dict[Any, _Call] = {}
        self._inquests = Inquests()
        self._events: list[Event] = []

    def start(self, worker: int) -> None:
        """Ask Ray for an actor; it may wait for room without limit."""
        actor = _Actor(self._actor_class.remote(*self._arguments))
        self._actors[worker] = actor
        self._call(_Call("place", worker), actor.handle.place)

    def submit(self, worker: int, task: ShardTask) -> None:
        """Ask whether the worker lives; the shard is sent as soon as it says so."""
        actor = self._actors.get(worker)
        if actor is not None:  # else its WorkerDied is on the way
            self._call(_Call("accept", worker, task), actor.handle.accept)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Wait for the first answer and take all that are there."""
        try:
            self._beat()
            deadline = time.monotonic() + timeout_s
            while not self._events:
                left_s = deadline - time.monotonic()
                self._collect(max(0.0, min(left_s, 0.5 if self._inquests else left_s)))
                self._settle()
                if left_s <= 0:
                    break
        except (RaySystemError, RpcError, LocalRayletDiedError, ConnectionError) as error:
            raise ClusterLostError(f"the Ray cluster went away: {sentence(error)}") from error
        events, self._events = self._events, []
        return events

    def heartbeats(self) -> Mapping[int, int]:
        """As last heard."""
        return {number: actor.images for number, actor in self._actors.items() if actor.ready}

    def kill(self, worker: int, reason: str) -> None:
        """End the actor's process at once."""
        actor = self._actors.get(worker)
        if actor is not None:
            self._remove(worker, actor)
            self._report(Death(worker, actor.ready, reason, node_lost=False))

    def close(self) -> bool:
        """End all actors."""
        self._inquests.close()
        for worker, actor in list(self._actors.items()):
            self._remove(worker, actor)
        return True

    # -- calls and answers -----------------------------------------------------------------------

    def _call(self, call: _Call, method: Any, *arguments: object) -> None:
        reference = method.remote(*arguments)
        self._calls[reference] = call
        self._actors[call.worker].calls.add(reference)

    def _beat(self) -> None:
        now = time.monotonic()
        for number, actor in self._actors.items():
            if actor.ready and now >= actor.beat_due:
                actor.beat_due = float("inf")  # until this one is answered
                self._call(_Call("beat", number), actor.handle.images_done)

    def _collect(self, timeout_s: float) -> None:
        if not self._calls:
            time.sleep(timeout_s)
            return
        answered, waiting = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        if answered and waiting:
            answered += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        for reference in answered:
            self._take(reference)

    def _take(self, reference: Any) -> None:
        call = self._calls.pop(reference, None)
        if call is None:  # its actor was removed while this batch was taken
            return
        actor = self._actors[call.worker]
        actor.calls.discard(reference)
        try:
            answer = ray.get(reference)
        except (RaySystemError, RpcError, LocalRayletDiedError):
            raise
        except RayError as error:
            self._bury(call.worker, actor, error)
            return
        self._answered(call, actor, answer)

    def _answered(self, call: _Call, actor: _Actor, answer: Any) -> None:
        number, task = call.worker, call.task
        match call.kind:
            case "place":
                actor.host, actor.pid, actor.node = answer
                self._events.append(WorkerPlaced(number, actor.host, actor.pid))
                self._call(_Call("load", number), actor.handle.load)
            case "load" if answer is None:
                actor.ready = True
                self._events.append(WorkerReady(number, actor.host, actor.pid))
            case "load":
                self._remove(number, actor)
                self._events.append(WorkerFailedToStart(number, answer))
            case "accept" if task is not None:
                self._events.append(ShardStarted(number, task))
                self._call(_Call("run", number, task), actor.handle.run, task)
            case "run" if task is not None:
                if isinstance(answer, Raised):
                    self._events.append(ShardRaised(number, task, answer))
                else:
                    self._events.append(ShardFinished(number, task, answer))
            case "beat":
                actor.images = answer
                actor.beat_due = time.monotonic() + _HEARTBEAT_S

    # -- deaths ----------------------------------------------------------------------------------

    def _bury(self, number: int, actor: _Actor, error: RayError) -> None:
        """The actor is gone; what it had answered before counts first."""
        if actor.calls:
            pending = list(actor.calls)
            for reference in ray.wait(pending, num_returns=len(pending), timeout=0)[0]:
                call = self._calls[reference]
                if call.kind != "run":
                    continue
                try:
                    answer = ray.get(reference)
                except RayError:
                    continue
                del self._calls[reference]
                actor.calls.discard(reference)
                self._answered(call, actor, answer)
        self._forget(number, actor)
        self._inquests.begin(
            number, actor.handle, actor.node, error, time.monotonic(), was_ready=actor.ready
        )

    def _settle(self) -> None:
        for death in self._inquests.settle(time.monotonic()):
            self._report(death)

    def _forget(self, number: int, actor: _Actor) -> None:
        for reference in actor.calls:
            self._calls.pop(reference, None)
        actor.calls.clear()
        self._actors.pop(number, None)

    def _remove(self, number: int, actor: _Actor) -> None:
        self._forget(number, actor)
        ray.kill(actor.handle, no_restart=True)

    def _report(self, death: Death) -> None:
        if death.was_ready:
            self._events.append(WorkerDied(death.worker, death.reason, death.node_lost))
        else:
            raised = Raised("WorkerFailedToStart", death.reason, "", "retry")
            self._events.append(WorkerFailedToStart(death.worker, raised, death.node_lost))
