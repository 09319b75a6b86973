"""The schedule against a fake pool: no processes, no clock but the one turned here."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pools.protocol import (
    Event,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.orders import (
    EXIT_BUDGET,
    EXIT_FAILED,
    EXIT_REFUSED,
    AvoidMachine,
    Cancel,
    KillWorker,
    LetGo,
    Order,
    Quarantine,
    Release,
    Rules,
    StartWorker,
    Submit,
)
from cluster.scheduling.schedule import Schedule
from cluster.scheduling.verdicts import Raised, Verdict
from lib.receipts import ShardReport, ShardTask


def names(count: int) -> dict[str, str]:
    return {f"s{i:03d}": f"/in/s{i:03d}.tar" for i in range(count)}


def report(task: ShardTask, n_in: int = 10, n_err: int = 0) -> ShardReport:
    return ShardReport(
        task.shard,
        task.attempt,
        "committed",
        n_in,
        n_in - n_err,
        n_err,
        n_in,
        1,
        1,
        0.1,
        1.0,
        0.0,
        0.1,
        "host",
    )


def raised(verdict: Verdict = "retry") -> Raised:
    return Raised("ValueError", "no", "Traceback ...", verdict)


@dataclass
class Bench:
    """A schedule, the orders it gave, and a clock."""

    schedule: Schedule
    now: float = 0.0
    orders: list[Order] = field(default_factory=list)

    def step(self, *events: Event, after: float = 0.0) -> list[Order]:
        self.now += after
        for event in events:
            self.schedule.observe(event, self.now)
        new = self.schedule.orders(self.now)
        self.orders += new
        return new

    def ready(self, *workers: int) -> list[ShardTask]:
        self.step()
        return tasks(self.step(*(WorkerReady(w, "host", w) for w in workers)))


def tasks(orders: list[Order]) -> list[ShardTask]:
    return [order.task for order in orders if isinstance(order, Submit)]


def start(*pairs: tuple[int, ShardTask]) -> list[Event]:
    return [ShardStarted(worker, task) for worker, task in pairs]


def test_every_worker_gets_one_shard_before_any_gets_two() -> None:
    bench = Bench(Schedule(names(4), Rules(workers=2)))
    bench.step()
    orders = bench.step(WorkerReady(0, "h", 1), WorkerReady(1, "h", 2))
    assert [o.worker for o in orders if isinstance(o, Submit)] == [0, 1, 0, 1]


def test_the_last_shards_are_not_fetched_ahead_while_another_worker_starts() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=2)))
    bench.step()
    (first,) = tasks(bench.step(WorkerReady(0, "h", 1)))
    orders = bench.step(*start((0, first)), WorkerReady(1, "h", 2))
    assert [o.worker for o in orders if isinstance(o, Submit)] == [1]


def test_the_last_shard_goes_to_whoever_is_free_first() -> None:
    bench = Bench(Schedule(names(3), Rules(workers=2)))
    sent = bench.ready(0, 1)
    assert [task.shard for task in sent] == ["s000", "s001"]
    assert bench.step(*start((0, sent[0]), (1, sent[1])), after=5) == []
    orders = bench.step(ShardFinished(1, sent[1], report(sent[1])))
    assert [(o.worker, o.task.shard) for o in orders if isinstance(o, Submit)] == [(1, "s002")]


def test_a_worker_that_never_starts_holds_nothing_up() -> None:
    bench = Bench(Schedule(names(3), Rules(workers=2)))
    sent = bench.ready(0)
    for shard in ("s000", "s001", "s002"):
        assert sent[0].shard == shard
        sent = (
            tasks(bench.step(*start((0, sent[0])), ShardFinished(0, sent[0], report(sent[0]))))
            or sent[1:]
        )
    assert bench.schedule.over


def test_no_more_workers_are_started_than_shards_are_left() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=8)))
    assert bench.step() == [StartWorker(0), StartWorker(1)]


def test_a_shard_the_worker_never_began_is_not_charged_when_the_worker_dies() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, max_attempts=1, max_start_failures=9)))
    for worker in range(5):
        (task,) = bench.ready(worker)
        assert task.attempt == 1
        bench.step(WorkerDied(worker, "killed", node_lost=False))
    assert bench.schedule.counts.quarantined == 0


def test_losing_the_machine_is_free_however_often() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, max_attempts=2)))
    for worker in range(10):
        (task,) = bench.ready(worker)
        assert task.attempt == worker + 1
        bench.step(*start((worker, task)), WorkerDied(worker, "node gone", node_lost=True))
    assert bench.schedule.counts.waiting + bench.schedule.counts.in_flight == 1
    assert bench.schedule.stopped is None


def test_of_two_shards_on_a_dying_worker_only_the_one_that_kills_alone_is_given_up() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, max_attempts=3)))
    first = bench.ready(0)
    assert [task.shard for task in first] == ["s000", "s001"]
    bench.step(*start((0, first[0]), (0, first[1])), WorkerDied(0, "exit 1", node_lost=False))
    starts: Counter[str] = Counter(task.shard for task in first)
    worker = 1
    while not bench.schedule.over:
        sent = bench.ready(worker) if worker else []
        assert len(sent) == 1, "a suspect is sent alone"
        starts[sent[0].shard] += 1
        if sent[0].shard == "s000":
            bench.step(*start((worker, sent[0])), WorkerDied(worker, "exit 1", node_lost=False))
            worker += 1
        else:
            sent_next = tasks(
                bench.step(
                    *start((worker, sent[0])), ShardFinished(worker, sent[0], report(sent[0]))
                )
            )
            for task in sent_next:
                starts[task.shard] += 1
                bench.step(*start((worker, task)), WorkerDied(worker, "exit 1", node_lost=False))
                worker += 1
    given_up = [order for order in bench.orders if isinstance(order, Quarantine)]
    assert [(order.shard, order.attempts) for order in given_up] == [("s000", 3)]
    assert starts == {"s000": 3, "s001": 2}
    assert "exit 1" in given_up[0].reason


def test_a_death_in_company_never_gives_a_shard_up_even_on_its_last_attempt() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, max_attempts=1)))
    both = bench.ready(0)
    bench.step(*start((0, both[0]), (0, both[1])), WorkerDied(0, "exit", node_lost=False))
    assert bench.schedule.counts.quarantined == 0


def test_a_suspect_waits_for_a_worker_that_holds_nothing_else_and_keeps_it_for_itself() -> None:
    bench = Bench(Schedule(names(8), Rules(workers=2)))
    sent = bench.ready(0, 1)
    mine = [t for t in sent if t.shard in ("s000", "s002")]
    others = [t for t in sent if t.shard in ("s001", "s003")]
    bench.step(*start(*((0, t) for t in mine), *((1, t) for t in others)))
    orders = bench.step(WorkerDied(0, "exit", node_lost=False))
    assert tasks(orders) == []
    orders = bench.step(ShardFinished(1, others[0], report(others[0])))
    assert tasks(orders) == [], "worker 1 runs empty for the suspects"
    orders = bench.step(ShardFinished(1, others[1], report(others[1])))
    assert [task.shard for task in tasks(orders)] == ["s000"]
    orders = bench.step(WorkerReady(2, "h", 3))
    assert [task.shard for task in tasks(orders)] == ["s002"]


def test_a_raising_shard_is_retried_after_a_pause_on_another_worker_and_then_given_up() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, max_attempts=2, retry_pause_s=1.0)))
    (task,) = bench.ready(0)
    assert tasks(bench.step(*start((0, task)), ShardRaised(0, task, raised()))) == []
    (again,) = tasks(bench.step(after=1.1))
    assert again.attempt == 2
    orders = bench.step(*start((0, again)), ShardRaised(0, again, raised()))
    (given_up,) = [order for order in orders if isinstance(order, Quarantine)]
    assert given_up.attempts == 2
    assert given_up.reason == "ValueError: no"
    assert given_up.traceback == "Traceback ..."
    assert bench.schedule.over


def test_a_retry_prefers_a_worker_that_did_not_fail_it() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=2)))
    sent = bench.ready(0, 1)
    bench.step(*start((0, sent[0]), (1, sent[1])), ShardRaised(0, sent[0], raised()))
    assert tasks(bench.step(after=5)) == []
    orders = bench.step(ShardFinished(1, sent[1], report(sent[1])))
    assert [(o.worker, o.task.shard) for o in orders if isinstance(o, Submit)] == [(1, "s000")]


def test_damage_is_given_up_at_once_and_a_vanished_shard_is_looked_for_once_more() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, vanished_pause_s=5.0)))
    damaged, vanished = bench.ready(0)
    bench.step(*start((0, damaged), (0, vanished)))
    bench.step(ShardRaised(0, damaged, raised("damaged")))
    bench.step(ShardRaised(0, vanished, raised("vanished")))
    assert bench.schedule.counts.quarantined == 1
    assert tasks(bench.step(after=4.9)) == []
    (again,) = tasks(bench.step(after=0.2))
    bench.step(*start((0, again)), ShardRaised(0, again, raised("vanished")))
    assert bench.schedule.counts.quarantined == 2


@pytest.mark.parametrize(
    ("verdict", "exit_code"), [("output_refused", EXIT_FAILED), ("refused", EXIT_REFUSED)]
)
def test_what_is_no_fault_of_the_shard_stops_the_run_and_gives_nothing_up(
    verdict: Verdict, exit_code: int
) -> None:
    bench = Bench(Schedule(names(5), Rules(workers=1)))
    task = bench.ready(0)[0]
    bench.step(*start((0, task)), ShardRaised(0, task, raised(verdict)))
    assert bench.schedule.stopped is not None
    assert bench.schedule.stopped.exit_code == exit_code
    assert bench.schedule.over
    assert bench.schedule.counts.quarantined == 0


def test_a_failing_output_store_stops_the_run_after_the_last_attempt() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, max_attempts=2)))
    (task,) = bench.ready(0)
    bench.step(*start((0, task)), ShardRaised(0, task, raised("output_failed")))
    assert bench.schedule.stopped is None
    (task,) = tasks(bench.step(after=9))
    bench.step(*start((0, task)), ShardRaised(0, task, raised("output_failed")))
    assert bench.schedule.stopped is not None
    assert bench.schedule.counts.quarantined == 0


def test_a_worker_broken_by_a_shard_is_replaced_and_its_other_shard_is_not_blamed() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, max_attempts=1)))
    both = bench.ready(0)
    orders = bench.step(
        *start((0, both[0]), (0, both[1])), ShardRaised(0, both[0], raised("worker_broken"))
    )
    assert [type(order) for order in orders] == [KillWorker, StartWorker]
    assert bench.schedule.counts.quarantined == 0
    assert bench.step(ShardRaised(0, both[1], raised())) == []


def test_a_silent_worker_is_ended_once_and_a_slow_one_is_not() -> None:
    bench = Bench(Schedule(names(4), Rules(workers=1, stall_timeout_s=10)))
    sent = bench.ready(0)
    bench.step(*start((0, sent[0])))
    for images in range(1, 4):
        bench.schedule.heartbeats({0: images}, bench.now)
        assert bench.step(after=9) == []
    assert [type(o) for o in bench.step(after=2)] == [KillWorker]
    assert bench.step(after=100) == []
    bench.step(WorkerDied(0, "killed", node_lost=False))
    assert bench.schedule.counts.in_flight == 0


def test_the_shard_that_a_silent_workers_model_had_in_hand_has_one_more_attempt() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, max_attempts=5, stall_timeout_s=10)))
    front, behind = bench.ready(0)
    bench.step(*start((0, front), (0, behind)))
    bench.step(after=11)
    bench.step(WorkerDied(0, "killed", node_lost=False))
    (again,) = bench.ready(1)
    assert again.shard == front.shard
    bench.step(*start((1, again)))
    bench.step(after=11)
    orders = bench.step(WorkerDied(1, "killed", node_lost=False))
    assert [order.shard for order in orders if isinstance(order, Quarantine)] == [front.shard]
    assert bench.schedule.counts.waiting == 1


def test_an_idle_worker_is_never_silent() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, stall_timeout_s=1, retry_pause_s=100)))
    (task,) = bench.ready(0)
    bench.step(*start((0, task)), ShardRaised(0, task, raised()))
    assert bench.step(after=50) == []


def test_a_worker_that_cannot_start_three_times_stops_the_run_with_its_error() -> None:
    bench = Bench(Schedule(names(5), Rules(workers=1)))
    bench.step()
    for worker in range(3):
        assert bench.schedule.stopped is None
        bench.step(WorkerFailedToStart(worker, Raised("OSError", "no such GPU", "", "retry")))
    assert bench.schedule.stopped is not None
    assert bench.schedule.stopped.exit_code == EXIT_FAILED
    assert "OSError: no such GPU" in bench.schedule.stopped.sentence


def test_one_bad_place_among_good_ones_is_left_empty_and_the_run_goes_on() -> None:
    bench = Bench(Schedule(names(9), Rules(workers=2)))
    bench.step()
    bench.step(WorkerReady(0, "h", 1), WorkerFailedToStart(1, raised()))
    bench.step(WorkerFailedToStart(2, raised()))
    orders = bench.step(WorkerFailedToStart(3, raised()))
    assert not any(isinstance(order, StartWorker) for order in orders)
    assert bench.schedule.stopped is None


def test_a_model_that_cannot_be_used_stops_the_run_at_once() -> None:
    bench = Bench(Schedule(names(5), Rules(workers=3)))
    bench.step()
    bench.step(WorkerFailedToStart(1, raised("refused")))
    assert bench.schedule.stopped is not None
    assert bench.schedule.stopped.exit_code == EXIT_REFUSED


def test_a_worker_that_loads_for_ever_is_ended() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, start_timeout_s=60)))
    bench.step()
    bench.step(after=1000)
    assert bench.step(WorkerPlaced(0, "h", 1)) == []
    assert [type(order) for order in bench.step(after=61)] == [KillWorker]


def test_the_error_budget_counts_from_a_hundred_samples_on() -> None:
    bench = Bench(Schedule(names(9), Rules(workers=1, max_error_rate=0.1)))
    sent = bench.ready(0)
    sent += tasks(bench.step(ShardFinished(0, sent[0], report(sent[0], n_in=99, n_err=99))))
    assert bench.schedule.stopped is None
    bench.step(ShardFinished(0, sent[1], report(sent[1], n_in=1, n_err=0)))
    assert bench.schedule.stopped is not None
    assert bench.schedule.stopped.exit_code == EXIT_BUDGET
    assert "99 of 100 samples" in bench.schedule.stopped.sentence


def test_an_error_rate_just_at_the_limit_goes_on() -> None:
    bench = Bench(Schedule(names(9), Rules(workers=1, max_error_rate=0.1)))
    sent = bench.ready(0)
    bench.step(ShardFinished(0, sent[0], report(sent[0], n_in=100, n_err=10)))
    assert bench.schedule.stopped is None


def test_draining_sends_nothing_more_and_ends_with_the_last_shard_in_flight() -> None:
    bench = Bench(Schedule(names(5), Rules(workers=1)))
    sent = bench.ready(0)
    bench.schedule.drain()
    assert bench.step(ShardFinished(0, sent[0], report(sent[0]))) == []
    assert not bench.schedule.over
    bench.step(*start((0, sent[1])), WorkerDied(0, "exit", node_lost=False))
    assert bench.schedule.over
    assert bench.schedule.counts.waiting == 4


def busy_bench(workers: int, shards: int, seconds: float = 10.0) -> tuple[Bench, list[Submit]]:
    """Workers that have done all but the last shards, each of which took `seconds`."""
    bench = Bench(Schedule(names(shards), Rules(workers=workers)))
    bench.step()
    submits = bench.step(*(WorkerReady(w, "h", w) for w in range(workers)))
    bench.step(*(ShardStarted(s.worker, s.task) for s in submits if isinstance(s, Submit)))
    held = {
        w: [s for s in submits if isinstance(s, Submit) and s.worker == w] for w in range(workers)
    }
    while bench.schedule.counts.waiting or max(map(len, held.values())) > 1:
        done = [held[worker].pop(0) for worker in held if held[worker]]
        new = bench.step(
            *(ShardFinished(s.worker, s.task, report(s.task)) for s in done), after=seconds
        )
        for submit in (order for order in new if isinstance(order, Submit)):
            bench.step(ShardStarted(submit.worker, submit.task))
            held[submit.worker].append(submit)
    return bench, [submit for submits in held.values() for submit in submits]


def test_an_idle_worker_takes_what_lags_behind_and_the_loser_is_told_to_stop() -> None:
    bench, (slow, quick) = busy_bench(workers=2, shards=12)
    bench.step(ShardFinished(quick.worker, quick.task, report(quick.task)), after=10)
    assert bench.step(after=1.0) == [], "11 s of some 10: it may end at any moment"
    (copy,) = bench.step(after=1.5)
    assert isinstance(copy, Submit)
    assert (copy.worker, copy.task.shard) == (quick.worker, slow.task.shard)
    assert copy.task.duplicate
    assert bench.step(after=60.0) == [], "two of one shard are enough"
    orders = bench.step(ShardFinished(copy.worker, copy.task, report(copy.task)))
    assert orders == [Cancel(slow.worker, slow.task.shard)]
    assert bench.schedule.over
    assert bench.schedule.counts.done == 12


def test_workers_for_which_nothing_is_left_are_let_go_but_for_one_a_shard_in_flight() -> None:
    bench, last = busy_bench(workers=4, shards=40)
    bench.step(*(ShardFinished(s.worker, s.task, report(s.task)) for s in last[1:]), after=10)
    assert [o for o in bench.step(after=29) if isinstance(o, LetGo)] == []
    (copy,) = [o for o in bench.orders if isinstance(o, Submit) and o.task.duplicate]
    orders = bench.step(after=2)
    assert len(orders) == 1, "two are idle, one shard is in flight"
    assert isinstance(orders[0], LetGo)
    assert orders[0].worker not in (copy.worker, last[0].worker)
    assert bench.step(WorkerDied(last[0].worker, "exit", node_lost=False), after=9) == []
    orders = bench.step(WorkerDied(copy.worker, "exit", node_lost=True))
    assert len(tasks(orders)) == 1, "the spare one takes it over"


def test_the_death_of_one_of_two_copies_leaves_the_shard_with_the_other() -> None:
    bench, (slow, quick) = busy_bench(workers=2, shards=12)
    bench.step(ShardFinished(quick.worker, quick.task, report(quick.task)), after=10)
    (copy,) = [o for o in bench.step(after=5.0) if isinstance(o, Submit)]
    bench.step(ShardStarted(copy.worker, copy.task))
    assert tasks(bench.step(WorkerDied(slow.worker, "exit", node_lost=False))) == []
    assert bench.schedule.counts.in_flight == 1
    bench.step(ShardFinished(copy.worker, copy.task, report(copy.task)))
    assert bench.schedule.counts.done == 12


def test_a_shard_that_was_stopped_on_our_order_is_not_charged() -> None:
    bench = Bench(Schedule(names(1), Rules(workers=1, max_attempts=1)))
    (task,) = bench.ready(0)
    bench.step(*start((0, task)))
    bench.schedule.release()
    assert bench.step() == [Cancel(0, task.shard)]
    assert bench.step(ShardRaised(0, task, raised("cancelled"))) == []
    assert bench.schedule.over
    assert (bench.schedule.counts.waiting, bench.schedule.counts.quarantined) == (1, 0)


def test_a_machine_on_which_no_worker_starts_is_avoided_and_others_take_its_places() -> None:
    bench = Bench(Schedule(names(9), Rules(workers=2)))
    bench.step()
    for worker in (0, 2, 3):
        bench.step(WorkerPlaced(worker, "bad", 1, "node-b"))
        orders = bench.step(WorkerFailedToStart(worker, raised()))
    assert [type(order) for order in orders] == [AvoidMachine, StartWorker]
    bench.step(WorkerPlaced(4, "good", 1, "node-g"))
    assert len(tasks(bench.step(WorkerReady(4, "good", 1)))) == 2
    bench.schedule.no_machine_left("OSError: no GPU")
    assert bench.schedule.stopped is not None
    assert "OSError: no GPU" in bench.schedule.stopped.sentence


def test_one_bad_card_of_a_good_machine_costs_its_own_place_only() -> None:
    bench = Bench(Schedule(names(50), Rules(workers=2)))
    bench.step()
    bench.step(WorkerPlaced(0, "h", 1, "node"))
    sent = tasks(bench.step(WorkerReady(0, "h", 1)))
    for worker in (1, 2, 3):
        done = sent.pop(0)
        sent += tasks(bench.step(*start((0, done)), ShardFinished(0, done, report(done))))
        bench.step(WorkerPlaced(worker, "h", 2, "node"))
        orders = bench.step(WorkerFailedToStart(worker, raised()))
    assert orders == []
    assert bench.schedule.stopped is None


def test_a_late_commit_of_a_worker_given_up_counts_and_lifts_the_quarantine() -> None:
    bench = Bench(Schedule(names(2), Rules(workers=1, max_attempts=1, stall_timeout_s=1)))
    first, _ = bench.ready(0)
    bench.step(*start((0, first)))
    bench.step(WorkerDied(0, "stalled", node_lost=False))
    assert bench.schedule.counts.quarantined == 1
    assert Release(first.shard) in bench.step(ShardFinished(0, first, report(first)))
    assert bench.schedule.counts.quarantined == 0
    assert bench.schedule.counts.done == 1


def test_shards_that_another_driver_did_are_not_sent() -> None:
    bench = Bench(Schedule(names(5), Rules(workers=1)))
    bench.schedule.found_committed(["s000", "s003", "unknown"])
    assert [task.shard for task in bench.ready(0)] == ["s001", "s002"]
    assert bench.schedule.counts.done == 2


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shards=st.integers(0, 25),
    workers=st.integers(1, 5),
    max_attempts=st.integers(1, 4),
)
def test_under_random_deaths_every_shard_ends_once_and_only_the_guilty_are_given_up(
    seed: int, shards: int, workers: int, max_attempts: int
) -> None:
    """Some shards always kill, some always raise; machines vanish, workers fail to start."""
    chance = random.Random(seed)
    inputs = names(shards)
    killers = {name for name in inputs if chance.random() < 0.1}
    raisers = {name for name in inputs if chance.random() < 0.1} - killers
    rules = Rules(
        workers=workers,
        max_attempts=max_attempts,
        max_start_failures=10**6,
        retry_pause_s=0.5,
        spare_s=1.0,
    )
    schedule = Schedule(inputs, rules)
    held: dict[int, dict[str, ShardTask]] = {}
    begun: dict[int, set[str]] = {}
    starting: set[int] = set()
    starts: Counter[str] = Counter()
    free_starts: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    given_up: set[str] = set()
    finished: set[str] = set()

    def kill(worker: int, *, node_lost: bool) -> Event:
        for name in begun.pop(worker):
            if node_lost:
                free_starts[name] += 1
        held.pop(worker)
        return WorkerDied(worker, "gone", node_lost)

    now = 0.0
    late: list[Event] = []
    for _ in range(20_000):
        for order in schedule.orders(now):
            match order:
                case StartWorker(worker):
                    assert len(held) + len(starting) < workers
                    starting.add(worker)
                case Submit(worker, task):
                    held[worker][task.shard] = task
                    assert len(held[worker]) <= 2
                    copies = sum(task.shard in tasks_ for tasks_ in held.values())
                    assert copies == 1 + task.duplicate, "one shard, one worker, or a duplicate"
                case Cancel(worker, shard):
                    if (cancelled := held.get(worker, {}).pop(shard, None)) is not None:
                        begun[worker].discard(shard)
                        late.append(ShardRaised(worker, cancelled, raised("cancelled")))
                case LetGo(worker):
                    assert not held.pop(worker)
                    begun.pop(worker)
                case Quarantine(shard):
                    ended[shard] += 1
                    given_up.add(shard)
                case _:
                    raise AssertionError(order)
        if schedule.over:
            break
        now += 0.3
        events, late = late, []
        for worker in list(starting):
            roll = chance.random()
            if roll < 0.6:
                starting.discard(worker)
                if roll < 0.1:
                    events.append(WorkerFailedToStart(worker, raised(), node_lost=roll < 0.05))
                else:
                    held[worker], begun[worker] = {}, set()
                    events.append(WorkerReady(worker, "h", worker))
        for worker in list(held):
            roll = chance.random()
            if roll < 0.03:
                events.append(kill(worker, node_lost=True))
                continue
            for name, task in list(held[worker].items()):
                if name not in begun[worker]:
                    if chance.random() < 0.7:
                        begun[worker].add(name)
                        starts[name] += 1
                        duplicates[name] += task.duplicate
                        events.append(ShardStarted(worker, task))
                elif name in killers:
                    events.append(kill(worker, node_lost=False))
                    break
                elif chance.random() < 0.5:
                    del held[worker][name]
                    begun[worker].discard(name)
                    if name in raisers:
                        events.append(ShardRaised(worker, task, raised()))
                    else:
                        finished.add(name)
                        events.append(ShardFinished(worker, task, report(task)))
        for event in events:
            schedule.observe(event, now)
    assert schedule.over
    assert schedule.stopped is None
    assert ended + Counter(finished) == Counter(inputs.keys()), "each shard ended exactly once"
    assert given_up == killers | raisers
    counts = schedule.counts
    assert (counts.done, counts.quarantined) == (shards - len(given_up), len(given_up))
    for name in killers | raisers:
        assert starts[name] - free_starts[name] <= max_attempts + 1 + duplicates[name]
