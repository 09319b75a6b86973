"""What a schedule orders of workers, as calls of a pool."""

from __future__ import annotations

from cluster.pools.protocol import Pool
from cluster.scheduling.orders import (
    AvoidMachine,
    Cancel,
    KillWorker,
    LetGo,
    Order,
    StartWorker,
    Submit,
)


def command(pool: Pool, order: Order) -> int | None:
    """Pass an order on; those that concern the run folder alone are none of a pool's. After
    AvoidMachine, how many other machines could hold a worker.
    """
    match order:
        case StartWorker(worker):
            pool.start(worker)
        case KillWorker(worker, reason):
            pool.kill(worker, reason)
        case LetGo(worker):
            pool.let_go(worker)
        case Submit(worker, task):
            pool.submit(worker, task)
        case Cancel(worker, shard):
            pool.cancel(worker, shard)
        case AvoidMachine(node):
            return pool.avoid(node)
        case _:
            pass
    return None
