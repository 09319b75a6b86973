"""A store that is down for a while ends no run that can go on; one that forbids does, in words."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from cluster.scheduling.verdicts import describe
from lib.files import retries, storage
from lib.ledger.run_folder import RunFolder
from lib.receipts import ShardReport, ShardTask

DOWN = storage.StoreUnavailableError("s3://bucket/run: the store failed 3 times in 10 s")


def test_a_listing_that_fails_for_a_while_ends_no_run(
    toy_run: Any,
    toys: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver lists what others have done now and then, and waits briefly for that alone."""
    monkeypatch.setattr("cluster.driver._REFRESH_S", 0.0)
    listed = RunFolder.committed

    def committed(folder: RunFolder) -> frozenset[str]:
        if retries.patience_s() < retries.DEFAULT_PATIENCE_S:
            raise DOWN
        return listed(folder)

    monkeypatch.setattr(RunFolder, "committed", committed)
    toy_run.write(a={"seconds": 0.2}, b={})
    outcome = toy_run.run(toys.ToyWorker)
    assert outcome.exit_code == 0, outcome.sentence
    assert "looked up later" in caplog.text


@pytest.mark.parametrize("answers", [True, False], ids=["the shard alone", "the whole store"])
def test_a_shard_is_given_up_for_a_silent_store_only_where_the_store_answers(
    toy_run: Any, toys: ModuleType, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    class Unread(toys.ToyWorker):  # type: ignore[misc, name-defined]
        def run(self, task: ShardTask) -> ShardReport:
            if task.shard == "b":
                raise DOWN
            return super().run(task)

    looked_at = storage.exists

    def exists(url: str) -> bool:
        if url.endswith("b.tar") and not answers:
            raise DOWN
        return looked_at(url)

    monkeypatch.setattr(storage, "exists", exists)
    toy_run.write(a={}, b={}, c={})
    outcome = toy_run.run(Unread)
    assert set(toy_run.folder.committed()) == {"a", "c"}
    if answers:
        assert outcome.exit_code == 3
        assert set(toy_run.folder.quarantined()) == {"b"}
    else:
        assert outcome.exit_code == 1
        assert outcome.sentence.startswith(str(DOWN))
        assert "run the same command again" in outcome.sentence
        assert not toy_run.folder.quarantined()


def test_an_error_of_a_silent_store_is_judged_by_whose_store_it_is() -> None:
    assert describe(DOWN).verdict == "unavailable"
