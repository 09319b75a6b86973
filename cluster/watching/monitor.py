"""The one object that a driver tells everything: it shows a run, writes it down and adds it up."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from rich.console import Console

from cluster.events import PATIENCE_S, EventLog
from cluster.progress import ProgressLine, line
from cluster.scheduling.orders import Counts
from cluster.watching.event_notes import EventNotes
from cluster.watching.observer import Draining, Noted, Observer, Released
from cluster.watching.shard_log import ShardLog
from cluster.watching.tally import Tally
from lib.files import storage
from lib.ledger.driver_record import DRIVER_VERSION, INTERVAL_S, DriverRecord, write_driver
from lib.ledger.run_folder import RunFolder
from lib.ledger.snapshot import Snapshot
from pipelines.config import Execution

_log = logging.getLogger(__name__)


class Monitor:
    """Use as a context around the driver's loop; then say `finalizing` and `ended`.

    What cannot be written is kept and tried again at the next interval: a store that refuses for
    good also refuses the commits, and those stop the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        execution: Execution,
        verb: str,
        counts: Callable[[], Counts],
        before: Snapshot,
        console: Console,
    ) -> None:
        """`verb`: what is done with the shards, in a word. `before`: where they were."""
        started = datetime.now(UTC)
        pid = os.getpid()
        stamp = started.strftime("%Y%m%dT%H%M%S.%fZ")
        self.name = f"{stamp}-{socket.gethostname()}-{pid}"
        self.tally = Tally(time.monotonic(), execution.gpus_per_worker)
        self._folder = folder
        self._execution = execution
        self._verb = verb
        self._counts = counts
        self._before = before.counts
        self._started, self._pid = started, pid
        self._events = EventLog(folder, self.name)
        self._log = ShardLog()
        self._observers: list[Observer] = [
            EventNotes(self._events, self.tally),
            self._log,
            self.tally,
        ]
        self._state: Literal["working", "draining", "finalizing", "ended"] = "working"
        self._exit_code: int | None = None
        self._sentence = ""
        self._written_at = time.monotonic()
        self._progress = ProgressLine(console, self._line, self._written_at)

    def add(self, observer: Observer) -> None:
        """One more who hears everything."""
        self._observers.append(observer)

    def __enter__(self) -> Self:
        counts = self._counts()
        self._events.add(
            "run_started",
            shards=self._before.inputs,
            pending=counts.total,
            engine=self._execution.engine,
            workers=self._execution.workers,
            gpus_per_worker=self._execution.gpus_per_worker,
        )
        self._save()
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        now = time.monotonic()
        self.tally.stop(now)
        for observer in self._observers:
            observer.tick(self._counts(), now)
        self._progress.finish(now)
        self._progress.__exit__(kind, error, trace)

    def noted(self, fact: Noted, now: float) -> None:
        """Something happened."""
        for observer in self._observers:
            observer.noted(fact, now)
        match fact:
            case Draining(signal, in_flight, timeout_s):
                self._state = "draining"
                limit = "" if timeout_s is None else f" for up to {timeout_s:g} s"
                self._progress.say(
                    f"{signal}: finishing the {in_flight} shards in flight{limit}, starting no"
                    " more; once more stops at once"
                )
                self._save()
            case Released(in_flight):
                self._progress.say(
                    f"releasing the {in_flight} shards still in flight; the next run begins them"
                    " again"
                )

    def tick(self, now: float) -> None:
        """Time passes; called at least once a second."""
        counts = self._counts()
        for observer in self._observers:
            observer.tick(counts, now)
        self._progress.tick(now)
        if now - self._written_at >= INTERVAL_S:
            self._save()

    def finalizing(self) -> None:
        """The loop is over; what is made from the commits is being made."""
        self._state = "finalizing"
        self._save()

    def ended(self, exit_code: int, sentence: str) -> None:
        """The last word of this driver."""
        self._state, self._exit_code, self._sentence = "ended", exit_code, sentence
        self._events.add(
            "run_finished",
            exit_code=exit_code,
            reason=sentence,
            counts=self._counts(),
            work=asdict(self.record().work),
        )
        self._save()

    def record(self) -> DriverRecord:
        """How this driver stands now."""
        now = time.monotonic()
        counts = self._counts()
        return DriverRecord(
            v=DRIVER_VERSION,
            name=self.name,
            host=socket.gethostname(),
            pid=self._pid,
            engine=self._execution.engine,
            workers=self._execution.workers,
            gpus_per_worker=self._execution.gpus_per_worker,
            started_at=self._started,
            seen_at=datetime.now(UTC),
            state=self._state,
            exit_code=self._exit_code,
            sentence=self._sentence,
            to_do=counts.total,
            in_flight=counts.in_flight,
            waiting=counts.waiting,
            ready_workers=self.tally.ready_workers,
            loading_workers=self.tally.loading_workers,
            images_per_s=self.tally.rate(),
            work=self.tally.upto(now),
            trouble=self._log.trouble,
        )

    def _line(self, now: float) -> str:
        unit = "gpu" if self._execution.gpus_per_worker else "model"
        before = self._before
        return line(
            self._verb,
            unit,
            self._counts(),
            self.tally,
            before.committed,
            before.quarantined,
            now,
        )

    def _save(self) -> None:
        self._written_at = time.monotonic()
        try:
            with storage.patience(PATIENCE_S):
                self._events.flush()
                write_driver(self._folder, self.record())
        except OSError as error:
            _log.warning("what happens cannot be written into the run folder: %s", error)
