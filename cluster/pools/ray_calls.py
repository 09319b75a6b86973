"""Calls to actors whose answers are awaited, so many that each look at them must count."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

from lib.receipts import ShardTask

_GATHER_S = 0.02
"""What else comes within this time of the first answer is taken together with it: one look at
thousands of calls costs milliseconds.
"""


@dataclass(slots=True)
class Actor:
    """A worker's process as Ray knows it."""

    handle: Any
    host: str = ""
    pid: int = 0
    node: str | None = None
    ready: bool = False
    images: int = 0
    beat_due: float = 0.0
    calls: set[Any] = field(default_factory=set)
    """References of the calls that it has not answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of a worker."""

    kind: Literal["place", "load", "accept", "run", "beat", "cancel"]
    worker: int
    task: ShardTask | None = None


class Calls:
    """The calls that were made and not answered, by reference."""

    def __init__(self) -> None:
        self._calls: dict[Any, Call] = {}

    def make(
        self, call: Call, actor: Actor, method: Callable[..., Any], *arguments: object
    ) -> None:
        """Call an actor's method."""
        reference = method(*arguments)
        self._calls[reference] = call
        actor.calls.add(reference)

    def answered(self, timeout_s: float) -> list[Any]:
        """Wait for the first answer; the references of all that are there."""
        if not self._calls:
            time.sleep(timeout_s)
            return []
        made = list(self._calls)
        if not ray.wait(made, num_returns=1, timeout=timeout_s)[0]:
            return []
        return list(ray.wait(made, num_returns=len(made), timeout=_GATHER_S)[0])

    def answered_runs(self, actor: Actor) -> list[Any]:
        """References of the shards that an actor brought to an end before it went away."""
        pending = list(actor.calls)
        if not pending:
            return []
        done = ray.wait(pending, num_returns=len(pending), timeout=0)[0]
        return [reference for reference in done if self._calls[reference].kind == "run"]

    def take(self, reference: Any, actors: dict[int, Actor]) -> tuple[Call, Actor] | None:
        """A call that is answered; None if its actor is gone meanwhile."""
        call = self._calls.pop(reference, None)
        if call is None:
            return None
        actor = actors[call.worker]
        actor.calls.discard(reference)
        return call, actor

    def forget(self, actor: Actor) -> None:
        """The actor is gone: its answers do not matter."""
        for reference in actor.calls:
            self._calls.pop(reference, None)
        actor.calls.clear()
