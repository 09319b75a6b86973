"""Shards of an evaluation, measured in worker processes on this machine; one file a shard, so that
a killed evaluation goes on where it was.

The cluster form of the same measurements is the stage `evaluate` inside a run.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from lib.problems import Problem
from pipelines.evaluation.orders import Measurer, Order, Receipt

MakeMeasurer = Callable[[Order], Measurer]
"""A class or function at the top of a module: it is named to the processes, not sent."""

_held: list[Measurer] = []
"""Of this worker process: its measurer, once loaded."""


class WorkersLost(Problem):
    """A worker process died."""


def measure_shards(
    make: MakeMeasurer, order: Order, shards: Sequence[str], workers: int
) -> Iterator[Receipt]:
    """A receipt a shard, as they are done; with one worker in this process.

    Raises:
        ModelProblem, ConfigProblem: a model cannot be used.
        WorkersLost: a process died, as it does where memory runs out.
    """
    if workers == 1 or len(shards) <= 1:
        measurer = make(order)
        yield from map(measurer, shards)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: set[Future[Receipt]] = set()
        try:
            for shard in shards:
                running.add(pool.submit(_measure, make, order, shard))
                if len(running) >= 2 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise WorkersLost(
                f"a worker process died ({error}); run the same command again to go on, with fewer"
                " --workers if memory ran out"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(make: MakeMeasurer, order: Order, shard: str) -> Receipt:
    if not _held:
        _held.append(make(order))
    return _held[0](shard)
