"""Which worker gets which shard: one each before anyone gets two, suspects alone, the last ones to
whoever is free first, what lags behind a second time; and who is not needed any more.
"""

from __future__ import annotations

from cluster.scheduling.fleet import Fleet, Worker
from cluster.scheduling.orders import LetGo, Rules, Submit
from cluster.scheduling.shard_queue import Shard, ShardQueue
from cluster.scheduling.stragglers import ShardTimes, laggards
from lib.receipts import ShardTask

_LOOK_S = 1.0
"""So often at most all workers are looked through for what lags behind."""
_COPIES = 2


class Dispatch:
    """Gives the shards of a queue to the workers of a fleet."""

    def __init__(self, queue: ShardQueue, fleet: Fleet, rules: Rules) -> None:
        self._queue = queue
        self._fleet = fleet
        self._rules = rules
        self._look_at = 0.0
        self.times = ShardTimes()

    def submissions(self, now: float) -> list[Submit]:
        """What to send now."""
        if not self._fleet.ready:
            return []
        submits, company, held_back = self._suspects(now)
        submits += self._shared(company, held_back, now)
        for shard in company:
            self._queue.retry(shard, now)
        if not self._queue.counts.waiting:
            submits += self._duplicates(now)
        return submits

    def _suspects(self, now: float) -> tuple[list[Submit], list[Shard], int]:
        """Those that must be alone go to workers that hold nothing; for each that finds none, one
        worker is to be left to run empty. Also the other shards that are to be tried again.
        """
        submits: list[Submit] = []
        company: list[Shard] = []
        held_back = 0
        for shard in self._queue.due(now):
            idle = self._fleet.with_room(0) if shard.alone else []
            if not shard.alone:
                company.append(shard)
            elif idle:
                chosen = min(idle, key=lambda worker: worker.number == shard.avoid)
                submits.append(self._send(chosen, shard, now, alone=True))
            else:
                held_back += 1
                self._queue.retry(shard, now)
        return submits, company, held_back

    def _shared(self, company: list[Shard], held_back: int, now: float) -> list[Submit]:
        submits: list[Submit] = []
        # The least busy are left to run empty, one for each shard that must be alone.
        spared: set[int] = set()
        for held in range(self._rules.in_flight if held_back else 0):
            free = self._fleet.with_room(held)[: held_back - len(spared)]
            spared.update(worker.number for worker in free)
        for held in range(self._rules.in_flight):
            for worker in self._fleet.with_room(held):
                if worker.number in spared:
                    continue
                if not self._enough_for(held, now):
                    break
                found = self._choose(worker, company)
                if found is not None:
                    submits.append(self._send(worker, found, now))
                elif not company:
                    return submits
        return submits

    def _enough_for(self, held: int, now: float) -> bool:
        """Whether a worker that holds so many shards may have another. The last ones wait for
        whoever is free first: none is fetched ahead that another worker, also one that still
        starts, could begin sooner.
        """
        if not held:
            return True
        rivals = self._fleet.rivals(held, now - self._rules.place_grace_s)
        return self._queue.counts.waiting >= rivals

    def _choose(self, worker: Worker, company: list[Shard]) -> Shard | None:
        any_worker = self._fleet.ready == 1
        for position, shard in enumerate(company):
            if any_worker or shard.avoid != worker.number:
                return company.pop(position)
        return self._queue.fresh()

    def _duplicates(self, now: float) -> list[Submit]:
        """For workers that hold nothing, the shards that would hold the end of the run up most."""
        typical_s = self.times.typical_s
        if not self._rules.duplicate_above or typical_s is None or now < self._look_at:
            return []
        idle = self._fleet.with_room(0)
        if not idle:
            return []
        self._look_at = now + _LOOK_S
        least_s = max(self._rules.duplicate_above * typical_s, self._rules.duplicate_least_s)
        late = [x for x in laggards(self._fleet, typical_s, now) if x.remaining_s > least_s]
        late.sort(key=lambda laggard: -laggard.remaining_s)
        submits = []
        for laggard in late:
            shard = self._queue[laggard.shard]
            if shard.state != "sent" or shard.alone or shard.copies >= _COPIES:
                continue
            submits.append(self._send(idle.pop(0), shard, now))
            if not idle:
                break
        return submits

    def _send(self, worker: Worker, shard: Shard, now: float, *, alone: bool = False) -> Submit:
        task = ShardTask(shard.name, shard.url, shard.starts + 1, duplicate=bool(shard.copies))
        self._fleet.give(worker, task, now, alone=alone)
        self._queue.send(shard)
        return Submit(worker.number, task)

    def spare(self, now: float) -> list[LetGo]:
        """Workers for which there will be no work, whatever becomes of the shards in flight."""
        counts = self._queue.counts
        if counts.waiting:
            return []
        idle = self._fleet.with_room(0)
        spare = [w for w in idle if now - w.freed_at > self._rules.spare_s]
        spare = spare[: max(0, len(idle) - counts.in_flight)]
        for worker in spare:
            self._fleet.remove(worker)
        return [LetGo(worker.number) for worker in spare]
