"""`run --shard-of I/N`: parts of one run in processes that know nothing of each other."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.cli import main
from cluster.shard_part import ShardPart
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.problems import ConfigProblem

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_parts_are_disjoint_whole_and_of_even_size(count: int) -> None:
    items = [f"s{number}" for number in range(7)]
    parts = [ShardPart(index, count).of(items) for index in range(count)]
    assert sorted(item for part in parts for item in part) == items
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "3", "8/8", "1/0", "-1/4", "1/4/2", "a/b", "1.0/2", " 0/2"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigProblem, match=r"--shard-of: expected I/N .*0/8 for the first"):
        ShardPart.parse(text)


def test_a_wrong_part_is_exit_2_before_anything_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "demo", "--shard-of", "4/4"])
    assert end.value.code == 2
    assert "got '4/4'" in capsys.readouterr().err


def test_a_part_that_is_done_leaves_the_manifest_to_the_one_that_ends_last(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, b={}, c={}, d={}, e={})
    folder: RunFolder = toy_run.folder
    first = toy_run.run(toys.ToyWorker, part=ShardPart(0, 2))
    assert (first.exit_code, first.shards, first.done) == (0, 3, 3)
    assert "2 shards of other parts are not done yet" in first.sentence
    assert folder.committed() == {"a", "c", "e"}
    assert not Path(folder.index_url).exists()

    again = toy_run.run(toys.ToyWorker, part=ShardPart(0, 2))
    assert (again.exit_code, again.sentence) == (0, first.sentence)
    assert not Path(folder.index_url).exists()

    last = toy_run.run(toys.ToyWorker, part=ShardPart(1, 2))
    assert (last.exit_code, last.shards, last.done) == (0, 5, 5)
    assert verify(folder).ok
    assert verify(folder).notes == ()


def test_a_part_tells_of_its_own_quarantined_shards_and_tries_only_those_again(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={}, b={"do": "damage"}, c={"do": "damage"}, d={})
    healthy = toy_run.run(toys.ToyWorker, part=ShardPart(3, 4))
    assert healthy.exit_code == 0
    assert toy_run.run(toys.ToyWorker, part=ShardPart(1, 4)).exit_code == 3
    assert toy_run.run(toys.ToyWorker, part=ShardPart(2, 4)).exit_code == 3
    toy_run.write(b={}, c={})
    released = toy_run.run(toys.ToyWorker, part=ShardPart(1, 4), retry_quarantined=True)
    assert released.exit_code == 0
    assert toy_run.folder.quarantined_names() == {"c"}
    whole = toy_run.run(toys.ToyWorker, part=ShardPart(0, 4))
    assert (whole.exit_code, whole.shards, whole.quarantined) == (3, 4, 1), "all have ended"


def test_a_part_without_shards_is_done_at_once(toy_run: Any, toys: ModuleType) -> None:
    toy_run.write(a={})
    assert toy_run.run(toys.ToyWorker, part=ShardPart(5, 6)).exit_code == 0
    assert toy_run.folder.committed() == frozenset()


def test_three_parts_at_once_leave_the_bytes_of_one_run(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 5, 2)

    def config(name: str) -> Path:
        made = shards.config(tiny_checkpoint, pattern, tmp_path / name)
        return Path(shards.write_config(tmp_path / f"{name}.yaml", made))

    parts = [
        subprocess.Popen(
            shards.command("run", config("parts"), "--shard-of", f"{index}/3"),
            env=shards.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(3)
    ]
    try:
        said = [part.communicate(timeout=120)[0] for part in parts]
    finally:
        for part in parts:
            part.kill()
    assert [part.returncode for part in parts] == [0, 0, 0], said
    assert any("5 of 5 shards done" in text for text in said), "one saw the end of all"
    found = verify(RunFolder(str(tmp_path / "parts")), deep=True)
    assert (found.problems, found.notes) == ((), ())
    assert (found.committed, found.samples_ok) == (5, 10)
    starts = [event["shard"] for event in shards.events(tmp_path / "parts", "shard_started")]
    assert sorted(starts) == [f"in-{number}" for number in range(5)], "none was begun twice"

    assert shards.deltah("run", config("whole")).returncode == 0
    assert shards.hashes(tmp_path / "parts") == shards.hashes(tmp_path / "whole")
