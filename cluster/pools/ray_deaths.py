"""Why an actor is gone: its process ended, maybe by its shard's fault, or its machine went away.

The two look alike at first, and must differ: losing a machine is free, a death is charged. So every
death is held for a moment, until Ray names the cause or the machine proves to be up.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from cluster.pools.ray_session import living_nodes

_NODE_GRACE_S = 6.0
"""A preempted machine ends its processes some seconds before the cluster knows that it is gone."""
_SILENCE_GRACE_S = 75.0
"""A machine that fell silent is declared gone after some 15 to 65 s of missed health checks."""


@dataclass(frozen=True, slots=True)
class Death:
    """A settled one."""

    worker: int
    was_ready: bool
    reason: str
    node_lost: bool


@dataclass(slots=True)
class _Inquest:
    worker: int
    was_ready: bool
    handle: Any
    node: str | None
    reason: str
    until: float
    probe: Any = None
    """Where the connection broke: a call that will say whether the process is dead."""
    node_lost: bool | None = None
    """None: not known yet."""


class Inquests:
    """The deaths whose cause is not settled; times are monotonic seconds."""

    def __init__(self) -> None:
        self._open: list[_Inquest] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def begin(
        self,
        worker: int,
        handle: Any,
        node: str | None,
        error: RayError,
        now: float,
        *,
        was_ready: bool,
    ) -> None:
        """An actor's call failed with `error`; `node` is where it ran, None if it never did."""
        inquest = _Inquest(worker, was_ready, handle, node, sentence(error), now)
        self._open.append(inquest)
        if isinstance(error, ActorUnavailableError):
            inquest.until += _SILENCE_GRACE_S
            inquest.probe = handle.place.remote()
        elif _names_machine(error):
            inquest.node_lost = True
        elif len(living_nodes()) > 1:
            inquest.until += _NODE_GRACE_S

    def settle(self, now: float) -> list[Death]:
        """Those whose cause is known by now."""
        if not self._open:
            return []
        living = living_nodes()
        for inquest in self._open:
            if inquest.node_lost is None:
                self._judge(inquest, living.keys(), now)
        settled = [inquest for inquest in self._open if inquest.node_lost is not None]
        self._open = [inquest for inquest in self._open if inquest.node_lost is None]
        for inquest in settled:
            ray.kill(inquest.handle, no_restart=True)
        return [
            Death(inquest.worker, inquest.was_ready, inquest.reason, bool(inquest.node_lost))
            for inquest in settled
        ]

    def close(self) -> None:
        """End what may still live; the causes do not matter any more."""
        for inquest in self._open:
            ray.kill(inquest.handle, no_restart=True)
        self._open = []

    def _judge(self, inquest: _Inquest, living: Collection[str], now: float) -> None:
        if inquest.node is not None and inquest.node not in living:
            inquest.node_lost = True
        elif inquest.probe is not None and ray.wait([inquest.probe], timeout=0)[0]:
            self._probed(inquest, now)
        elif now >= inquest.until:
            inquest.node_lost = False

    def _probed(self, inquest: _Inquest, now: float) -> None:
        try:
            ray.get(inquest.probe)
        except ActorUnavailableError:
            inquest.probe = inquest.handle.place.remote()
        except RayActorError as error:
            inquest.probe, inquest.reason = None, sentence(error)
            inquest.until = min(inquest.until, now + _NODE_GRACE_S)
            if _names_machine(error):
                inquest.node_lost = True
        else:  # it lives, but what it was told may be lost: as if its machine had been away
            inquest.node_lost = True


def _names_machine(error: RayError) -> bool:
    """Whether Ray itself says that the machine is gone."""
    preempted = isinstance(error, RayActorError) and error.preempted
    return preempted or bool(re.search(r"its node (has died|was|is)", str(error)))


def sentence(error: BaseException) -> str:
    """Ray's long text without its first, general line and the indented list of ids."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
    if "creation task" in str(error) or "Traceback" in str(error):
        return lines[-1].strip()
    text = " ".join(line.strip() for line in (lines[1:] or lines))
    text = text.partition(" Some common causes include")[0]
    return text if len(text) <= 400 else f"{text[:397]}..."
