"""What `deltah status` says of runs that go, stop, crash, grow large, or lie in damaged folders."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.cli import main
from cluster.views.status import status_line
from cluster.watching import run_status
from cluster.watching.run_status import StatusReader
from lib.files import storage
from lib.ledger import quarantine
from lib.ledger.driver_record import DriverRecord, read_drivers, write_driver
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.receipts import ShardTask

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def half(toy_run: Any, toys: ModuleType) -> Any:
    """Two of four shards done, with 3 samples each; nobody works on it."""
    toy_run.write(**{name: {"samples": 3} for name in "abcd"})
    (toy_run.root / "in" / "d.tar").rename(toy_run.root / "d.tar")
    (toy_run.root / "in" / "c.tar").rename(toy_run.root / "c.tar")
    assert toy_run.run(toys.ToyWorker).exit_code == 0
    toy_run.folder.add_inputs({"c": "c.tar", "d": "d.tar"})
    return toy_run


def changed(folder: RunFolder, **changes: Any) -> DriverRecord:
    """The run's only driver, saying something else."""
    (record,), _ = read_drivers(folder)
    now = replace(record, **changes)
    write_driver(folder, now)
    return now


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["status", *arguments])
    assert not end.value.code
    return capsys.readouterr().out


def test_a_run_that_stopped_says_what_to_do(half: Any) -> None:
    status = StatusReader(half.folder).read()
    assert status.sentence() == "nobody works on it; run the same command again to go on"
    assert not status.over
    assert (status.summary.shards.committed, status.summary.shards.pending) == (2, 2)
    assert (status.images_per_s, status.left_s) == (0.0, None)


def test_a_driver_that_was_heard_lately_works_and_gives_rate_and_time_left(half: Any) -> None:
    changed(half.folder, state="working", seen_at=datetime.now(UTC), images_per_s=2.0)
    status = StatusReader(half.folder).read()
    assert status.sentence() == "working, 1 driver"
    assert status.images_per_s == 2.0
    assert status.left_s == pytest.approx(2 * 3 / 2.0)  # 2 shards of 3 images


def test_a_driver_that_fell_silent_has_probably_crashed(
    half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=300)
    record = changed(half.folder, state="working", seen_at=moment, images_per_s=2.0)
    status = StatusReader(half.folder).read()
    assert status.sentence().startswith(
        f"nobody seems to work on it: the last driver, process {record.pid} on {record.host},"
    )
    assert status.sentence().endswith("probably crashed; run the same command again to go on")
    assert status.left_s is None, "a dead driver's rate promises nothing"
    told = json.loads(call(capsys, half.folder.root, "--json"))["drivers"][0]
    assert not told["alive"]
    assert told["silent_s"] == pytest.approx(300, abs=30)
    changed(half.folder, seen_at=datetime.now(UTC) - timedelta(seconds=45))
    assert StatusReader(half.folder).read().living, "one interval missed is no crash"


def test_two_living_drivers_share_the_rate(half: Any) -> None:
    record = changed(half.folder, state="working", seen_at=datetime.now(UTC), images_per_s=2.0)
    write_driver(half.folder, replace(record, name="other", images_per_s=4.0))
    status = StatusReader(half.folder).read()
    assert status.sentence() == "working, 2 drivers"
    assert status.left_s == pytest.approx(2 * 3 / 6.0)
    assert status.work.images == 2 * 6


def test_ended_but_not_finalized_is_not_over(half: Any, toys: ModuleType) -> None:
    fingerprint = half.folder.read_run()["fingerprint"]
    config = json.dumps({"output": {"folder": half.folder.root}})
    worker = toys.ToyWorker(config, fingerprint)
    worker.run(ShardTask("c", str(half.root / "c.tar"), 1))
    quarantine.quarantine(half.folder, "d", "d.tar", "cut", None, 3)
    reader = StatusReader(half.folder)
    assert reader.read().sentence().startswith("all shards have ended, but the run is not finali")
    changed(half.folder, state="finalizing", seen_at=datetime.now(UTC))
    assert reader.read().sentence() == "finalizing, 1 driver"
    changed(half.folder, state="ended")
    finalize(half.folder)
    status = reader.read()
    assert status.over
    assert status.sentence() == "finished"
    assert status.summary.quarantined == {"d": "cut"}


def test_large_runs_are_counted_by_receipts_until_finalized_or_asked(
    half: Any, toys: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_status, "QUICK_COMMITS", 1)
    status = StatusReader(half.folder).read()
    assert status.source == "receipts"
    assert (status.summary.samples_err, status.summary.error_kinds) == (6, {"toy": 6})
    assert "(by receipts" in " ".join(call(capsys, half.folder.root).split())
    deep = StatusReader(half.folder, deep=True).read()
    assert (deep.source, deep.summary.samples_err) == ("commits", 6)
    for name in "cd":
        (half.root / f"{name}.tar").rename(half.root / "in" / f"{name}.tar")
    assert half.run(toys.ToyWorker).exit_code == 0
    status = StatusReader(half.folder).read()
    assert (status.source, status.summary.samples_err) == ("index.json", 12)
    assert status.summary.error_kinds == {"toy": 12}


def test_a_second_look_reads_only_new_commits(
    half: Any, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = storage.read_bytes

    reader = StatusReader(half.folder)
    reader.read()
    from lib.ledger import commit_totals

    def spy(url: str) -> Any:
        read.append(url)
        return spied(url)

    spied = commit_totals.read_commit
    monkeypatch.setattr(commit_totals, "read_commit", spy)
    assert reader.read().summary.samples_err == 6
    assert read == []
    worker = toys.ToyWorker(
        json.dumps({"output": {"folder": half.folder.root}}), half.folder.read_run()["fingerprint"]
    )
    worker.run(ShardTask("c", str(half.root / "c.tar"), 1))
    assert reader.read().summary.samples_err == 9
    assert read == [half.folder.commit_url("c")]
    storage.delete(half.folder.commit_url("a"))
    assert reader.read().summary.samples_err == 6, "what has gone is not counted"
    assert real is storage.read_bytes


def test_damaged_records_are_told_and_hide_nothing_else(
    half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(half.folder.root)
    (root / "drivers" / "torn.json").write_text('{"v": 1, "name": ')
    (root / "drivers" / "foreign.json").write_text('{"v": 9}')
    (root / "quarantine").mkdir(exist_ok=True)
    (root / "quarantine" / "c.json").write_text("nothing")
    (root / "commit" / "d.parquet").write_bytes(b"PAR1 and no more")
    (root / "index.json").write_text('{"v": 1}')
    with pytest.raises(SystemExit):
        main(["status", half.folder.root])
    printed = capsys.readouterr()
    said = " ".join(printed.err.split())
    assert "drivers/torn.json cannot be read" in said
    assert "drivers/foreign.json cannot be read: v" in said
    assert "d.parquet: expected a whole Parquet file" in said
    assert "expected version" in said
    assert "its record cannot be read" in printed.out
    assert "3 of 4 done" in printed.out


def test_json_is_one_object_with_the_numbers_of_verify(
    half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = call(capsys, half.folder.root, "--json")
    assert text.count("\n") == 1
    status, found = json.loads(text), verify(half.folder)
    assert status["shards"] == {
        "inputs": found.inputs,
        "committed": found.committed,
        "quarantined": found.quarantined,
        "pending": found.pending,
    }
    assert status["samples_err"] == found.samples_err
    assert status["drivers"][0]["work"] == asdict(read_drivers(half.folder)[0][0])["work"]


def test_watching_ends_with_the_run(
    half: Any, toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish() -> None:
        time.sleep(1.0)
        for name in "cd":
            (half.root / f"{name}.tar").rename(half.root / "in" / f"{name}.tar")
        half.run(toys.ToyWorker)

    finisher = threading.Thread(target=finish)
    finisher.start()
    lines = call(capsys, half.folder.root, "--watch", "--interval", "0.2").splitlines()
    finisher.join()
    assert lines[0].startswith(
        "2/4 shards | 2 ok 0 quarantined | 6 img (6 err) | 0.0 img/s | ETA ?"
    )
    assert lines[-1].startswith("4/4 shards | 4 ok 0 quarantined | 12 img (12 err)")
    assert lines[-1].endswith("| finished")
    assert lines[-1] == status_line(StatusReader(half.folder).read())


def test_the_last_events_are_printed_when_asked_for(
    half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = call(capsys, half.folder.root, "--events", "2").splitlines()[-2:]
    assert [json.loads(line)["event"] for line in lines] == ["shard_done", "run_finished"]


def test_verify_calls_an_unfinished_run_unfinished_and_not_a_problem(
    half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["verify", half.folder.root])
    text = capsys.readouterr().out
    assert end.value.code == 1, "it is not proved"
    assert "problem:" not in text
    assert "unfinished: shard c is neither committed nor quarantined; run the same" in text
    assert text.splitlines()[-1].endswith("2 shards to do, no problem so far")
    storage.delete(half.folder.commit_url("a"))
    storage.create(half.folder.commit_url("a"), b"no commit")
    with pytest.raises(SystemExit):
        main(["verify", half.folder.root])
    text = capsys.readouterr().out
    assert "problem: shard a: " in text
    assert "2 shards to do, " in text
    assert "no problem" not in text
