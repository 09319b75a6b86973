"""A thousand workers and a hundred thousand shards under the real schedule: how much of their time
is of use, how long the last shards take, and what the driver spends.

`python -m benchmarks.simulate` runs the default world; every number of it is an option. `--compare`
runs the policies for the last shards side by side.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.machine import describe
from benchmarks.simulated_cluster import SimulatedPool, World
from cluster.events import EventLog
from cluster.pools.commands import command
from cluster.progress import duration
from cluster.scheduling.orders import (
    DUPLICATE_ABOVE,
    Order,
    Quarantine,
    Rules,
    Submit,
)
from cluster.scheduling.schedule import Schedule
from cluster.watching.event_notes import EventNotes
from cluster.watching.observer import Noted
from cluster.watching.tally import Tally
from lib.ledger.driver_record import INTERVAL_S
from lib.ledger.run_folder import RunFolder
from lib.process_memory import peak_bytes

_POLL_S = 0.5
_BEAT_S = 10.0
"""Virtual seconds between heartbeats, as with a thousand workers on Ray."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one simulated run."""

    makespan_s: float
    ideal_s: float
    """The model time of all that was committed, lag included, shared evenly by workers that are
    never taken away, and one start.
    """
    nominal_s: float
    """The same without any lag."""
    useful: float
    """Of the time for which workers had a machine; so are the next three."""
    lost: float
    starting: float
    idle: float
    end_s: float
    """From the last shard being handed out for the first time to the end."""
    done: int
    quarantined: int
    missing: int
    twice: int
    wrong: int
    """Good shards that were given up."""
    attempts: int
    duplicates: int
    preemptions: int
    deaths: int
    driver_cpu_s: float
    """Of the schedule, the tally and the events that are written, without the simulated pool's."""
    driver_bytes: int
    """Peak of the process, the simulated cluster included."""


def simulate(world: World, rules: Rules) -> Result:
    """Drive `Schedule` to the end on a virtual clock."""
    pool = SimulatedPool(world)
    names = {f"faces-{i:06d}": f"s3://bucket/faces/faces-{i:06d}.tar" for i in range(world.shards)}
    good = [name for name in names if not pool.is_poison(name)]
    nominal_s = sum(pool.nominal_s(name) for name in good) / world.workers
    with TemporaryDirectory() as folder:
        driver = _Driver(pool, Schedule(names, rules), folder)
        driver.run()
    end_s = pool.now - driver.last_fresh_s
    pool.close()
    ledger, counts = pool.ledger, driver.schedule.counts
    start_s = world.place_s + world.load_s
    busy = ledger.useful_s + ledger.lost_s + ledger.starting_s
    return Result(
        makespan_s=pool.now,
        ideal_s=ledger.useful_s / world.workers + start_s,
        nominal_s=nominal_s + start_s,
        useful=ledger.useful_s / ledger.held_s,
        lost=ledger.lost_s / ledger.held_s,
        starting=ledger.starting_s / ledger.held_s,
        idle=1 - busy / ledger.held_s,
        end_s=end_s,
        done=counts.done,
        quarantined=counts.quarantined,
        missing=sum(name not in pool.committed for name in good),
        twice=sum(count > 1 for count in pool.committed.values()),
        wrong=sum(not pool.is_poison(name) for name in driver.given_up),
        attempts=ledger.attempts,
        duplicates=ledger.duplicates,
        preemptions=ledger.preemptions,
        deaths=ledger.deaths,
        driver_cpu_s=driver.cpu_s,
        driver_bytes=peak_bytes(),
    )


class _Driver:
    """The driver's loop on a virtual clock, with its own tally and events."""

    def __init__(self, pool: SimulatedPool, schedule: Schedule, folder: str) -> None:
        self._pool = pool
        self.schedule = schedule
        self._log = EventLog(RunFolder(folder), "simulated")
        self._tally = Tally(0.0, 1.0)
        self._notes = EventNotes(self._log, self._tally)
        self.given_up: list[str] = []
        self.last_fresh_s = 0.0
        """When the last shard was handed out for the first time."""
        self.cpu_s = 0.0

    def run(self) -> None:
        """To the end of the schedule."""
        pool, schedule = self._pool, self.schedule
        beat_at = save_at = 0.0
        begun = time.process_time()
        while True:
            for order in schedule.orders(pool.now):
                self._noted(order)
                self._carry_out(order)
            if schedule.over:
                break
            self.cpu_s += time.process_time() - begun
            events = pool.poll(_POLL_S)
            begun = time.process_time()
            for event in events:
                self._noted(event)
                schedule.observe(event, pool.now)
            if pool.now >= beat_at:
                beat_at = pool.now + _BEAT_S
                schedule.heartbeats(pool.heartbeats(), pool.now)
            if pool.now >= save_at:
                save_at = pool.now + INTERVAL_S
                self._log.flush()
        self.cpu_s += time.process_time() - begun

    def _noted(self, fact: Noted) -> None:
        self._notes.noted(fact, self._pool.now)
        self._tally.noted(fact, self._pool.now)

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, Quarantine):
            self.given_up.append(order.shard)
        if isinstance(order, Submit) and order.task.attempt == 1 and not order.task.duplicate:
            self.last_fresh_s = self._pool.now
        command(self._pool, order)


def rows(world: World, result: Result) -> list[tuple[str, str]]:
    """Label and value."""
    r = result
    again = r.attempts - world.shards
    return [
        ("makespan", f"{duration(r.makespan_s)}"),
        ("ideal", f"{duration(r.ideal_s)}; the makespan is {r.makespan_s / r.ideal_s:.3f} of it"),
        ("without lag", f"{duration(r.nominal_s)}; {r.makespan_s / r.nominal_s:.3f} of it"),
        ("utilisation", f"{r.useful:.2%} of the workers' time went into what was committed"),
        ("  lost", f"{r.lost:.2%} into what was preempted, killed, hung or second to finish"),
        ("  starting", f"{r.starting:.2%} into processes and models that start"),
        ("  idle", f"{r.idle:.2%}"),
        ("the end", f"{duration(r.end_s)} from handing out the last shard to the end of the run"),
        ("shards", f"{r.done:,} done, {r.quarantined:,} given up, {r.wrong} of them wrongly"),
        ("", f"{r.missing} lost, {r.twice} committed twice"),
        ("redone", f"{again:,} attempts more than shards, {r.duplicates:,} of them duplicates"),
        ("faults", f"{r.preemptions:,} machines preempted, {r.deaths:,} processes killed"),
        ("driver", f"{r.driver_cpu_s:.0f} CPU s, {r.driver_cpu_s / r.makespan_s:.2%} of a core"),
        ("", f"{r.driver_bytes / 1e6:.0f} MB, the simulated cluster included"),
    ]


def main(
    workers: int = 1000,
    shards: int = 100_000,
    images: int = 64,
    image_s: float = 5.0,
    spread: float = 0.1,
    preempted: float = 0.05,
    away_s: float = 600.0,
    poison: float = 0.001,
    hanging: float = 0.25,
    stragglers: float = 0.02,
    slow_workers: float = 0.0,
    slowdown: float = 5.0,
    seed: int = 0,
    duplicate_above: float = DUPLICATE_ABOVE,
    in_flight: int = 2,
    spare_s: float = 30.0,
    compare: Annotated[bool, typer.Option("--compare")] = False,
) -> None:
    """Print what came of it."""
    given = dict(locals())
    world = World(
        **{field.name: given[field.name] for field in fields(World) if field.name in given}
    )
    rules = Rules(
        workers=workers, in_flight=in_flight, duplicate_above=duplicate_above, spare_s=spare_s
    )
    print(describe())
    print(f"{world}")
    if not compare:
        for label, value in rows(world, simulate(world, rules)):
            print(f"{label:14}  {value}")
        return
    print("in flight  above  laggards  makespan  utilisation    end  duplicates  lost")
    for lag in (world, replace(world, stragglers=0.0, slow_workers=world.stragglers)):
        kind = "attempts" if lag.stragglers else "workers"
        for held, above in ((1, 0.0), (2, 0.0), (2, 1.0), (2, 1.2), (2, 1.5), (2, 2.0), (2, 3.0)):
            r = simulate(lag, replace(rules, in_flight=held, duplicate_above=above))
            print(
                f"{held:9}  {above or '-':>5}  {kind:8}  {r.makespan_s / r.ideal_s:8.3f}"
                f"  {r.useful:11.2%}  {r.end_s / r.ideal_s:5.1%}  {r.duplicates:10,}"
                f"  {r.missing:4}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
