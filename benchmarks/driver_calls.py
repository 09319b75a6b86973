"""What a thousand workers cost the driver on Ray: CPU time of its looks at calls that are not
answered yet, and of its heartbeats, measured with `cluster.pools.ray_calls` on one real actor that
stands for all.

`python -m benchmarks.driver_calls --workers 1000`
"""

from __future__ import annotations

import asyncio
import time

import ray
import typer

from benchmarks.machine import describe
from cluster.pools.ray_calls import Actor, Call, Calls
from cluster.pools.ray_pool import beat_interval_s
from cluster.pools.ray_session import Resources, ray_session

_LOOKS = 200


class Stand:
    """Answers at once, or when it is told to."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def run(self) -> None:
        """A shard in hand: no answer."""
        await self._over.wait()

    async def images_done(self) -> int:
        """A heartbeat."""
        return 1


def main(workers: int = 1000, shard_s: float = 320.0) -> None:
    """Print a table for so many workers, each of which ends a shard in so many seconds."""
    print(describe())
    with ray_session("local", 1, Resources(gpus=0.0, threads=1)):
        remote = ray.remote(max_concurrency=10 * workers)(Stand)
        actor = Actor(remote.remote())
        calls = Calls()
        for _ in range(2 * workers):  # two shards in hand each
            calls.make(Call("run", 0), actor, actor.handle.run.remote)
        ray.get(actor.handle.images_done.remote())
        begun = time.process_time()
        for _ in range(_LOOKS):
            calls.make(Call("beat", 0), actor, actor.handle.images_done.remote)
            for reference in calls.answered(1.0):
                calls.take(reference, {0: actor})
                ray.get(reference)
        look_s = (time.process_time() - begun) / _LOOKS
        begun = time.process_time()
        for _ in range(workers):
            calls.make(Call("beat", 0), actor, actor.handle.images_done.remote)
        answers = 0
        while answers < workers:
            for reference in calls.answered(1.0):
                calls.take(reference, {0: actor})
                answers += ray.get(reference)
        beats_s = (time.process_time() - begun) / workers
    beats = workers / beat_interval_s(workers)
    looks = min(50.0, beats + 3 * workers / shard_s)  # a look gathers what comes within 20 ms
    share = looks * look_s + beats * beats_s
    print(
        f"{2 * workers:,} calls without an answer yet, {workers:,} workers of {shard_s:g} s a shard"
    )
    print(f"a look with one answer   {look_s * 1e3:6.2f} ms of CPU, {looks:.0f} a second at most")
    print(f"a heartbeat among many   {beats_s * 1e3:6.2f} ms of CPU, {beats:.0f} a second")
    print(f"together                 {share:6.1%} of a core")


if __name__ == "__main__":
    typer.run(main)
