"""Workers as Ray actors, the engine `ray`: only orders and receipts travel, Ray places workers.

An actor is never restarted by Ray: a new one is made instead, so that no call can be lost in a
restart. Before every shard the worker must answer `accept`, and only then the shard counts as
started: a call to a process that is dead already costs nobody an attempt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

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
from cluster.pools.ray_calls import Actor, Call, Calls
from cluster.pools.ray_deaths import Death, Inquests, sentence
from cluster.pools.ray_session import Resources, living_nodes, workers_on
from cluster.scheduling.verdicts import Raised
from lib.receipts import ShardTask

_HEARTBEAT_S = 2.0
_MAX_BEATS_PER_S = 50.0
"""Of all workers together: a thousand are asked less often, not a thousand times in two seconds."""


def beat_interval_s(workers: int) -> float:
    """Seconds between two heartbeats of one worker."""
    return max(_HEARTBEAT_S, workers / _MAX_BEATS_PER_S)


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
        self._resources = resources
        self._avoided: list[str] = []
        self._places: dict[str, Any] = {}
        """Options that say where actors may lie."""
        self._actors: dict[int, Actor] = {}
        self._calls = Calls()
        self._inquests = Inquests()
        self._events: list[Event] = []

    def start(self, worker: int) -> None:
        """Ask Ray for an actor; it may wait for room without limit."""
        actor = Actor(self._actor_class.options(**self._places).remote(*self._arguments))
        self._actors[worker] = actor
        self._calls.make(Call("place", worker), actor, actor.handle.place.remote)

    def submit(self, worker: int, task: ShardTask) -> None:
        """Ask whether the worker lives; the shard is sent as soon as it says so."""
        actor = self._actors.get(worker)
        if actor is not None:  # else its WorkerDied is on the way
            self._calls.make(Call("accept", worker, task), actor, actor.handle.accept.remote)

    def cancel(self, worker: int, shard: str) -> None:
        """Tell the actor; nothing is waited for."""
        actor = self._actors.get(worker)
        if actor is not None:
            self._calls.make(Call("cancel", worker), actor, actor.handle.cancel.remote, shard)

    def avoid(self, node: str) -> int:
        """By Ray's own label of every machine."""
        self._avoided.append(node)
        names = ", ".join(self._avoided)
        self._places = {"label_selector": {"ray.io/node-id": f"!in({names})"}}
        return sum(
            workers_on(found, self._resources) > 0
            for name, found in living_nodes().items()
            if name not in self._avoided
        )

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Wait for the first answer and take all that are there."""
        try:
            self._beat()
            deadline = time.monotonic() + timeout_s
            while not self._events:
                left_s = deadline - time.monotonic()
                wait_s = max(0.0, min(left_s, 0.5 if self._inquests else left_s))
                for reference in self._calls.answered(wait_s):
                    self._take(reference)
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

    def let_go(self, worker: int) -> None:
        """End the actor, so that Ray can give its place to others."""
        actor = self._actors.get(worker)
        if actor is not None:
            self._remove(worker, actor)

    def close(self) -> bool:
        """End all actors."""
        self._inquests.close()
        for worker, actor in list(self._actors.items()):
            self._remove(worker, actor)
        return True

    # -- calls and answers -----------------------------------------------------------------------

    def _beat(self) -> None:
        now = time.monotonic()
        for number, actor in self._actors.items():
            if actor.ready and now >= actor.beat_due:
                actor.beat_due = float("inf")  # until this one is answered
                self._calls.make(Call("beat", number), actor, actor.handle.images_done.remote)

    def _take(self, reference: Any) -> None:
        taken = self._calls.take(reference, self._actors)
        if taken is None:  # its actor was removed while this batch was taken
            return
        call, actor = taken
        try:
            answer = ray.get(reference)
        except (RaySystemError, RpcError, LocalRayletDiedError):
            raise
        except RayError as error:
            self._bury(call.worker, actor, error)
            return
        self._answered(call, actor, answer)

    def _answered(self, call: Call, actor: Actor, answer: Any) -> None:
        number, task = call.worker, call.task
        match call.kind:
            case "place":
                actor.host, actor.pid, actor.node = answer
                placed = WorkerPlaced(number, actor.host, actor.pid, actor.node or "")
                self._events.append(placed)
                self._calls.make(Call("load", number), actor, actor.handle.load.remote)
            case "load" if answer is None:
                actor.ready = True
                self._events.append(WorkerReady(number, actor.host, actor.pid))
            case "load":
                self._remove(number, actor)
                self._events.append(WorkerFailedToStart(number, answer))
            case "accept" if task is not None:
                self._events.append(ShardStarted(number, task))
                self._calls.make(Call("run", number, task), actor, actor.handle.run.remote, task)
            case "run" if task is not None:
                if isinstance(answer, Raised):
                    self._events.append(ShardRaised(number, task, answer))
                else:
                    self._events.append(ShardFinished(number, task, answer))
            case "beat":
                actor.images = answer
                actor.beat_due = time.monotonic() + beat_interval_s(len(self._actors))

    # -- deaths ----------------------------------------------------------------------------------

    def _bury(self, number: int, actor: Actor, error: RayError) -> None:
        """The actor is gone; what it had answered before counts first."""
        for reference in self._calls.answered_runs(actor):
            try:
                answer = ray.get(reference)
            except RayError:
                continue
            taken = self._calls.take(reference, self._actors)
            if taken is not None:
                self._answered(taken[0], actor, answer)
        self._forget(number, actor)
        self._inquests.begin(
            number, actor.handle, actor.node, error, time.monotonic(), was_ready=actor.ready
        )

    def _settle(self) -> None:
        for death in self._inquests.settle(time.monotonic()):
            self._report(death)

    def _forget(self, number: int, actor: Actor) -> None:
        self._calls.forget(actor)
        self._actors.pop(number, None)

    def _remove(self, number: int, actor: Actor) -> None:
        self._forget(number, actor)
        ray.kill(actor.handle, no_restart=True)

    def _report(self, death: Death) -> None:
        if death.was_ready:
            self._events.append(WorkerDied(death.worker, death.reason, death.node_lost))
        else:
            raised = Raised("WorkerFailedToStart", death.reason, "", "retry")
            self._events.append(WorkerFailedToStart(death.worker, raised, death.node_lost))
