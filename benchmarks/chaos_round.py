"""One run under chaos: the same command again and again until it is done, faults meanwhile, and
what is left held against what must be left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.chaos_cluster import MACHINES, Machines, worker_pids
from benchmarks.chaos_worker import DEEDS, Order, command
from benchmarks.faulty_s3 import Fault, FaultyS3
from lib.ledger.commit_record import read_commit
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify

IN_FLIGHT = 2
"""Shards that a worker may hold."""
_ORPHANED = 4
"""Shards that an orphan goes on with."""
_BURST_S = 2.0
_FULL_S = 3.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What a round happens to."""

    order: Order
    poison: frozenset[str]
    """Shards that must be given up."""
    reference: Mapping[str, str]
    """Every good shard -> SHA-256 of the images that an undisturbed run makes of it."""
    images: int
    """In every shard."""
    root: Path
    """Of this round's own files."""
    disk: Path | None
    """A file system that can be filled up, where the output lies; None elsewhere."""
    s3: FaultyS3 | None
    limit_s: float
    """After which it counts as hanging."""


@dataclass(slots=True)
class Outcome:
    """What a round did and left."""

    faults: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    seconds: float = 0.0
    samples: int = 0
    lost: int = 0
    """Samples of good shards that are in no commit."""
    twice: int = 0
    wrong: int = 0
    """Commits with other images than an undisturbed run makes, shards given up wrongly, and
    sentences of `verify --deep`.
    """
    redone: int = 0
    """Times that a good shard was begun after its first."""
    allowed: int = 0
    """Shards in flight where faults struck: at most so many may be redone."""
    hung: bool = False
    problems: list[str] = field(default_factory=list)


class Round:
    """Drives one run to its end."""

    def __init__(self, setting: Setting, machines: Machines, chance: random.Random) -> None:
        self._setting = setting
        self._machines = machines
        self._chance = chance
        self._folder = RunFolder(setting.order.folder)
        self._notes = Path(setting.order.notes)
        self._orphans: list[subprocess.Popen[bytes]] = []
        self._log = (setting.root / "log").open("wb")
        self.outcome = Outcome()

    def run(self, faults: Sequence[str]) -> Outcome:
        """Inject `faults` at random moments while shards are committed; until the command ends with
        all shards settled.
        """
        good = len(self._setting.reference)
        plan = sorted((self._chance.randrange(1, good - 4), fault) for fault in faults)
        begun = time.monotonic()
        driver = self._start()
        while True:
            time.sleep(0.1)
            if time.monotonic() - begun > self._setting.limit_s:
                driver.kill()
                self.outcome.hung = True
                break
            if driver.poll() is not None:
                if driver.returncode in (0, 3):
                    break
                driver = self._start()
            if plan and len(self._folder.committed()) >= plan[0][0]:
                self._inject(plan.pop(0)[1], driver)
        self.outcome.seconds = time.monotonic() - begun
        for process in self._orphans:
            process.wait(60)
        self._log.close()
        self._judge()
        return self.outcome

    def _start(self) -> subprocess.Popen[bytes]:
        self.outcome.drivers += 1
        return self._process(self._setting.order)

    def _process(self, order: Order) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command(order), stdout=self._log, stderr=self._log)

    # -- faults ----------------------------------------------------------------------------------

    def _inject(self, fault: str, driver: subprocess.Popen[bytes]) -> None:
        workers = self._setting.order.workers
        match fault:
            case "worker killed":
                pids = worker_pids(self._notes)
                if not pids:
                    return
                os.kill(self._chance.choice(pids), signal.SIGKILL)
                self._allow(IN_FLIGHT)
            case "machine lost":
                self._machines.lose(self._chance)
                self._allow(IN_FLIGHT * workers // MACHINES)
            case "driver killed":
                driver.kill()
                self._allow(IN_FLIGHT * workers)
            case "orphan writing":
                self._orphan()
            case "disk full" if self._setting.disk is not None:
                self._fill(self._setting.disk, driver)
                self._allow(IN_FLIGHT * workers)
            case "store down" if self._setting.s3 is not None:
                plan = self._setting.s3.plan
                self._setting.s3.plan = lambda _: Fault.SLOW_DOWN
                time.sleep(_BURST_S)
                self._setting.s3.plan = plan
                self._allow(IN_FLIGHT * workers)
            case _:
                return
        self.outcome.faults[fault] += 1

    def _allow(self, shards: int) -> None:
        self.outcome.allowed += shards

    def _orphan(self) -> None:
        """A worker that nobody knows of goes on with shards that are not done."""
        urls = {Path(url).stem: url for url in self._setting.order.shards}
        left = sorted(set(self._setting.reference) - self._folder.committed())
        chosen = self._chance.sample(left, min(_ORPHANED, len(left)))
        notes = self._setting.root / "orphan-notes"
        notes.mkdir(exist_ok=True)
        shards = tuple(urls[name] for name in chosen)
        order = replace(self._setting.order, shards=shards, address="", notes=str(notes))
        self._orphans.append(self._process(order))

    def _fill(self, disk: Path, driver: subprocess.Popen[bytes]) -> None:
        """Until the driver has noticed, or for a while."""
        balloon = disk / "balloon"
        with balloon.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        end = time.monotonic() + _FULL_S
        while driver.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        balloon.unlink()

    # -- what is left ----------------------------------------------------------------------------

    def _judge(self) -> None:
        setting, outcome = self._setting, self.outcome
        if setting.s3 is not None:
            setting.s3.plan = None
        committed, given_up = self._folder.committed(), self._folder.quarantined_names()
        found = verify(self._folder, deep=True)
        outcome.problems += found.problems
        outcome.samples = found.samples_ok
        outcome.lost = len(setting.reference) * setting.images - found.samples_ok
        outcome.twice = max(0, -outcome.lost)
        outcome.problems += [f"{n} was given up" for n in sorted(given_up - setting.poison)]
        outcome.problems += [f"{n} was not given up" for n in sorted(setting.poison - given_up)]
        for name in sorted(committed):
            record = read_commit(self._folder.commit_url(name))
            if record.image_sha256 != setting.reference.get(name):
                outcome.problems.append(f"{name}: other images than in an undisturbed run")
        outcome.wrong = len(outcome.problems)
        starts = {p.name: len(p.read_text().splitlines()) for p in self._notes.iterdir()}
        outcome.redone = sum(starts.get(name, 1) - 1 for name in setting.reference)
        # Whoever ends a worker takes down what it held beside.
        killers = [n for n in setting.poison if n.partition("-")[0] in set(DEEDS) - {"raise"}]
        outcome.allowed += sum(starts.get(name, 0) * (IN_FLIGHT - 1) for name in killers)
        outcome.faults.update({f"poison that {_deed(n)}": 1 for n in setting.poison})


def _deed(name: str) -> str:
    deed = name.partition("-")[0]
    return {"exit": "exits", "segfault": "segfaults", "raise": "raises", "hang": "hangs"}.get(
        deed, "is cut"
    )
