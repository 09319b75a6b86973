"""Workers that give no sign of life: a slow one finishes images, a hanging one does not."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.scheduling.fleet import Worker
from cluster.scheduling.orders import Rules

_WATCH_S = 1.0
"""So often all workers are looked through."""


class Watch:
    """Looks for workers that must be ended."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._due = 0.0

    def silent(self, workers: Iterable[Worker], now: float) -> list[tuple[Worker, str]]:
        """Those to be ended now, with the reason."""
        if now < self._due:
            return []
        self._due = now + _WATCH_S
        found = ((worker, self._reason(worker, now)) for worker in workers if not worker.killed)
        return [(worker, reason) for worker, reason in found if reason]

    def _reason(self, worker: Worker, now: float) -> str:
        silent_s = now - worker.progress_at
        if worker.state == "ready" and worker.sent and silent_s > self._rules.stall_timeout_s:
            return f"it finished no image for {self._rules.stall_timeout_s:g} s"
        if worker.state == "placed" and silent_s > self._rules.start_timeout_s:
            return f"it was not ready after {self._rules.start_timeout_s:g} s"
        return ""
