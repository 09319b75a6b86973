"""What goes on beside the model: the next shard is decoded, the last one is encoded, and both know
where to stop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.sleeping_model import Sleep, SleepingFlow
from lib.files.images import encode
from lib.files.samples import RawSample, image_member
from lib.receipts import ShardTask
from pipelines import reading, writing
from pipelines.backlog import Backlog
from pipelines.turn import ModelTurn
from pipelines.worker import ShardWorker
from pipelines.worker_threads import BATCHES_AHEAD, ENCODERS, backlog_limit
from pipelines.writing import ShardWriter

pytestmark = pytest.mark.timeout(60)

BATCH, PICTURES = 4, 30
NAMES = ("a", "b")
SDEDIT = {"discover": {"method": "none"}, "edit": {"method": "sdedit"}}


def eventually(true: Callable[[], bool]) -> None:
    """Within a time that only a hang exceeds."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Setup:
    """Two shards, and workers whose model takes no time."""

    def __init__(self, checkpoint: Path, shards: ModuleType, root: Path) -> None:
        self.root, self._checkpoint, self._shards = root, checkpoint, shards
        for number, name in enumerate(NAMES):
            members = shards.samples(PICTURES, first=100 * number)
            shards.write_tar(root / "in" / f"{name}.tar", members)

    def worker(self, folder: str, hold: Callable[[str], None] | None = None) -> ShardWorker:
        made = self._shards.config(
            self._checkpoint, self.root / "in" / "*.tar", self.root / folder, **SDEDIT
        )
        assert made.invert.batch_size == BATCH
        _, fingerprint = self._shards.claimed(made, {n: self.task(n).url for n in NAMES})
        sleep = Sleep(0.0, 16, "")

        class Held(SleepingFlow):
            def __call__(self, shard: str, *rest: Any) -> Any:
                if hold is not None:
                    hold(shard)
                return super().__call__(shard, *rest)

        def load(config: Any, run_folder: Any, backlog: Backlog) -> Any:
            return lambda config: Held(config, sleep, {}, backlog)

        return ShardWorker(made.model_dump_json(), fingerprint, load)

    def task(self, name: str) -> ShardTask:
        return ShardTask(name, str(self.root / "in" / f"{name}.tar"), 1)


@pytest.fixture
def setup(tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path) -> Setup:
    return Setup(tiny_checkpoint, shards, tmp_path)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Shard -> samples that a thread has begun to decode so far."""
    counts: Counter[str] = Counter()

    def counted(raw: RawSample, claimed: Any) -> str:
        counts[raw.shard] += 1
        return image_member(raw, claimed)

    monkeypatch.setattr(reading, "image_member", counted)
    return counts


def test_the_next_shard_is_decoded_while_the_model_is_taken_and_only_so_far(
    setup: Setup, decoded: Counter[str]
) -> None:
    taken, go_on = threading.Event(), threading.Event()

    def hold(shard: str) -> None:
        taken.set()
        assert shard == "b" or go_on.wait(30)

    worker = setup.worker("run", hold)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(worker.run, setup.task("a"))
        assert taken.wait(30)
        second = threads.submit(worker.run, setup.task("b"))
        eventually(lambda: decoded["b"] == BATCHES_AHEAD * BATCH)
        time.sleep(0.1)
        assert decoded["b"] == decoded["a"] == BATCHES_AHEAD * BATCH == 12
        go_on.set()
        reports = [first.result(), second.result()]
    assert [r.n_ok for r in reports] == [PICTURES] * 2
    assert decoded == {"a": PICTURES, "b": PICTURES}
    assert reports[0].idle_s > 0, "the worker was ready before the first shard was there"


def test_encoders_that_fall_behind_stop_the_model_but_not_the_decoding_of_the_next_shard(
    setup: Setup, decoded: Counter[str], shards: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = setup.worker("usual")
    for name in NAMES:
        usual.run(setup.task(name))
    decoded.clear()
    go_on = threading.Event()
    added, add = Counter[str](), ShardWriter.add

    def slow(*image: Any) -> bytes:
        assert go_on.wait(30)
        return encode(*image)

    def counted(self: ShardWriter, evaluated: Any) -> None:
        add(self, evaluated)
        added[evaluated.sample.shard] += 1

    monkeypatch.setattr(writing, "encode", slow)
    monkeypatch.setattr(ShardWriter, "add", counted)
    worker = setup.worker("slow")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(worker.run, setup.task("a"))
        eventually(lambda: added["a"] == BATCH + ENCODERS)
        second = threads.submit(worker.run, setup.task("b"))
        eventually(lambda: decoded["b"] == BATCHES_AHEAD * BATCH)
        time.sleep(0.1)
        assert added == {"a": BATCH + ENCODERS}
        assert decoded["a"] < PICTURES
        go_on.set()
        reports = [first.result(), second.result()]
    assert reports[0].wait_s >= 0.1, "for the encoders"
    assert 0 < reports[0].wait_share <= 1
    assert shards.hashes(setup.root / "slow") == shards.hashes(setup.root / "usual")


def test_work_that_fails_gives_its_room_back() -> None:
    def fail() -> None:
        raise ValueError("no")

    with ThreadPoolExecutor(1) as pool:
        backlog = Backlog(pool, 1)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                backlog.submit(fail).result()
        assert backlog.submit(partial(int, "7")).result() == 7


def test_the_model_stands_free_from_one_shard_to_the_next() -> None:
    turn = ModelTurn()
    time.sleep(0.05)
    with turn.taken() as idle_s:
        assert idle_s >= 0.05
        time.sleep(0.2)
    with turn.taken() as idle_s:
        assert idle_s < 0.2, "while it was held it was not free"
    with pytest.raises(KeyError), turn.taken():
        {}["a shard that fails"]
    time.sleep(0.05)
    with turn.taken() as idle_s:
        assert idle_s >= 0.05


def test_room_for_a_batch_and_for_every_encoder(setup: Setup, shards: ModuleType) -> None:
    made = shards.config("embedded", "in.tar", setup.root, invert={"batch_size": 16})
    assert backlog_limit(made) == 16 + ENCODERS
