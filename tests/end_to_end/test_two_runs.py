"""Two drivers on one folder at once: each ends well, and the result is that of one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify

SHARDS, PICTURES = 6, 3


@pytest.mark.timeout(180)
def test_two_commands_at_once_both_end_well_and_nothing_is_doubled(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", SHARDS, PICTURES)
    made = shards.config(tiny_checkpoint, pattern, tmp_path / "run")
    config = shards.write_config(tmp_path / "run.yaml", made)
    drivers = [
        subprocess.Popen(
            shards.command("run", config),
            env=shards.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [driver.communicate(timeout=120)[0] for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    assert [driver.returncode for driver in drivers] == [0, 0], said
    for text in said:
        assert f"{SHARDS} of {SHARDS} shards done, 0 quarantined" in text
        assert "Traceback" not in text

    folder = RunFolder(str(tmp_path / "run"))
    found = verify(folder, deep=True)
    assert found.problems == ()
    assert found.notes == ()
    assert (found.committed, found.samples_ok) == (SHARDS, SHARDS * PICTURES)
    assert len(list((tmp_path / "run" / "events").iterdir())) == 2
    outcomes = {
        event["report"]["outcome"] for event in shards.events(tmp_path / "run", "shard_done")
    }
    assert outcomes == {"committed"}, "the same bytes are no lost race"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_on_its_way_outlives_the_sweep_of_another_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The end of a run sweeps unfinished files; those of a driver still at work among them."""
    swept: list[str] = []

    def sweep_before(move: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def moved(temporary: str, path: str) -> None:
            if path not in swept:
                swept.append(path)
                os.unlink(temporary)
            move(temporary, path)

        return moved

    def unsupported(_temporary: str, _path: str) -> None:
        raise OSError(errno.ENOTSUP, "no links here")

    monkeypatch.setattr(os, "link", sweep_before(os.link) if links else unsupported)
    monkeypatch.setattr(os, "replace", sweep_before(os.replace))
    new, index = str(tmp_path / "new"), str(tmp_path / "index")
    storage.create(new, b"new")
    storage.replace(index, b"1")
    storage.replace(index, b"2")
    assert swept == [new, index]
    assert storage.list_names(str(tmp_path)) == ["index", "new"]
    assert storage.read_bytes(new) == b"new"
    assert storage.read_bytes(index) == b"2"
    with pytest.raises(FileExistsError):
        storage.create(new, b"newer")
