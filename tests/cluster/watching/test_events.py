"""The events of a driver: what is written when, and what a reader makes of damage."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster import events as events_module
from cluster.events import EventLog, last_events, read_events
from lib.files import storage
from lib.ledger.driver_record import read_drivers
from lib.ledger.run_folder import RunFolder

pytestmark = pytest.mark.timeout(60)


def kinds(folder: RunFolder) -> list[str]:
    return [event["event"] for event in read_events(folder)]


def test_a_full_file_is_closed_and_files_are_read_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_MAX_FILE_BYTES", 200)
    folder = RunFolder(str(tmp_path))
    log = EventLog(folder, "20260101T000000.1Z-host-1")
    for number in range(50):
        log.add(f"e{number}", what="x" * 50)
    log.flush()
    assert len(list((tmp_path / "events").iterdir())) > 11, "10 comes after 9, not after 1"
    assert kinds(folder) == [f"e{number}" for number in range(50)]
    assert [event["event"] for event in last_events(folder, 3, print)] == ["e47", "e48", "e49"]


def test_a_store_that_refuses_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_MAX_FILE_BYTES", 200)
    folder = RunFolder(str(tmp_path))
    log = EventLog(folder, "d")
    real = storage.replace

    def refused(url: str, data: bytes) -> None:
        raise OSError("slow down")

    monkeypatch.setattr(storage, "replace", refused)
    for number in range(9):
        log.add(f"e{number}", what="x" * 50)
        with pytest.raises(OSError, match="slow down"):
            log.flush()
    monkeypatch.setattr(storage, "replace", real)
    log.flush()
    assert kinds(folder) == [f"e{number}" for number in range(9)]


def test_torn_garbled_and_foreign_lines_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    (tmp_path / "events").mkdir()
    good = json.dumps({"time": "2026-01-01T00:00:00+00:00", "event": "fine"}).encode()
    lines = [good, b'{"time": "2026-01', b"\xff\xfe\x00", b"[1, 2]", b'{"event": "untimed"}', good]
    (tmp_path / "events" / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "events" / "notes.txt").write_text("not ours")
    told: list[str] = []
    assert [event["event"] for event in read_events(folder, told.append)] == ["fine", "fine"]
    assert told == ["events/a.jsonl has lines that are no events: 2, 3, 4 and 1 more"]
    assert kinds(folder) == ["fine", "fine"], "who does not ask is not told"


def test_no_events_are_no_error(tmp_path: Path) -> None:
    assert kinds(RunFolder(str(tmp_path))) == []


def test_a_driver_is_seen_at_once_and_its_last_word_is_how_it_ended(
    toy_run: Any, toys: ModuleType
) -> None:
    seen: list[str] = []

    class Curious(toys.ToyWorker):  # type: ignore[name-defined, misc]
        def run(self, task: Any) -> Any:
            (record,), _ = read_drivers(toy_run.folder)
            seen.append(f"{record.state} {record.to_do} {kinds(toy_run.folder)}")
            return super().run(task)

    toy_run.write(a={}, bad={"do": "raise"})
    outcome = toy_run.run(Curious)
    assert seen[0] == "working 2 ['run_started']"
    (record,), _ = read_drivers(toy_run.folder)
    assert (record.state, record.exit_code, record.sentence) == ("ended", 3, outcome.sentence)
    assert (record.work.shards, record.work.given_up, record.work.failures) == (1, 1, {"retry": 3})
    assert record.trouble[-1].endswith("shard bad is given up: ValueError: a shard that raises")
    (name,) = (path.stem for path in (toy_run.root / "run" / "events").iterdir())
    assert record.name == name
    (last,) = toy_run.events("run_finished")
    assert (last["exit_code"], last["reason"]) == (3, outcome.sentence)


def test_what_cannot_be_written_down_is_said_and_does_not_stop_the_run(
    toy_run: Any,
    toys: ModuleType,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = storage.replace

    def refused(url: str, data: bytes) -> None:
        if "/drivers/" in url or "/events/" in url:
            raise OSError("slow down")
        real(url, data)

    monkeypatch.setattr(storage, "replace", refused)
    toy_run.write(a={})
    assert toy_run.run(toys.ToyWorker).exit_code == 0
    assert "cannot be written into the run folder: slow down" in caplog.text


def test_the_log_has_a_line_a_shard_only_when_asked(
    toy_run: Any, toys: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    toy_run.write(a={"samples": 5}, b={})
    toy_run.run(toys.ToyWorker)
    assert "shard a" not in caplog.text
    caplog.set_level(logging.INFO, "cluster")
    toy_run.write(c={"samples": 4})
    toy_run.run(toys.ToyWorker)
    (line,) = (text for text in caplog.messages if text.startswith("shard "))
    assert line.startswith("shard c, attempt 1, worker 0 on h: 4 images, 4 errors, 0 edits in ")
    assert line.endswith("model 1.0 s, wait 30.0%")
