"""What a run leaves, by the command line: the exact set of files, and nothing more the second
time.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.runner import run
from lib.ledger import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from pipelines.config import RunConfig


@dataclass(frozen=True)
class Done:
    """A finished run of two shards, one damaged shard and one bad picture."""

    config: Path
    folder: Path
    made: RunConfig
    said: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def done(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Done:
    root = tmp_path_factory.mktemp("files")
    pattern = shards.write_shards(root / "in", 2, 2)
    bad = [*shards.samples(2), ("bad.jpg", b"words")]
    shards.write_tar(root / "in" / "in-1.tar", bad)
    (root / "in" / "in-2.tar").write_bytes(b"words")
    made = shards.config(tiny_checkpoint, pattern, root / "run")
    config = shards.write_config(root / "run.yaml", made)
    return Done(config, root / "run", made, shards.deltah("run", config))


def test_the_files_are_these_and_no_others(done: Done, shards: ModuleType) -> None:
    assert done.said.returncode == 3, done.said.stderr
    index = json.loads((done.folder / "index.json").read_text())
    by_shard = {entry["shard"]: entry for entry in index["shards"]}
    assert by_shard.keys() == {"in-0", "in-1"}
    (error_file,) = (done.folder / "errors").iterdir()
    (event_file,) = (done.folder / "events").iterdir()
    driver = event_file.name.removesuffix(".jsonl")
    assert error_file.name.startswith("in-1-")
    found = {name for name in shards.files(done.folder) if not name.startswith("report/")}
    assert found == {
        "README.md",
        "commit/in-0.parquet",
        "commit/in-1.parquet",
        f"errors/{error_file.name}",
        f"drivers/{driver}.json",
        f"events/{driver}.jsonl",
        "index.json",
        "inputs.json",
        "manifest/edits-00000.parquet",
        "manifest/errors-00000.parquet",
        "model.json",
        "quarantine/in-2.json",
        "run.json",
        *(f"images/{entry['image']}" for entry in by_shard.values()),
        *(f"directions/{entry['directions']}" for entry in by_shard.values()),
    }


def test_the_index_counts_what_the_files_hold(done: Done, shards: ModuleType) -> None:
    totals = json.loads((done.folder / "index.json").read_text())["totals"]
    tars = list((done.folder / "images").iterdir())
    assert totals == {
        "shards": 2,
        "quarantined": 1,
        "samples": 4,
        "errors": 1,
        "edits": 8,
        "marked": 0,
        "dropped": 0,
        "directions": 4,
        "image_bytes": sum(tar.stat().st_size for tar in tars),
        "directions_bytes": sum(p.stat().st_size for p in (done.folder / "directions").iterdir()),
        "statistics_bytes": 0,
        "latents_bytes": 0,
    }
    assert pq.read_table(done.folder / "manifest" / "edits-00000.parquet").num_rows == 8
    assert len(shards.images(done.folder)) == 8


def test_the_run_can_be_proved_and_shown_without_its_inputs(done: Done, shards: ModuleType) -> None:
    proof = shards.deltah("verify", done.folder, "--deep")
    assert proof.returncode == 0, proof.stdout
    assert "3 shards: 2 committed, 1 quarantined" in proof.stdout
    assert "all accounted for" in proof.stdout
    status = shards.deltah("status", done.folder)
    assert status.returncode == 0
    assert "2 of 3 done" in status.stdout
    assert "not_an_image" in status.stdout


def test_again_nothing_is_left_to_do_and_neither_torch_nor_ray_is_imported(
    done: Done, shards: ModuleType
) -> None:
    before = {name: (done.folder / name).stat().st_mtime_ns for name in shards.files(done.folder)}
    program, *rest = shards.command("run", done.config, "--engine", "ray", "--workers", "2")
    started = time.monotonic()
    again = subprocess.run(
        [program, "-X", "importtime", *rest],
        capture_output=True,
        text=True,
        timeout=60,
        env=shards.environment(),
        check=False,
    )
    seconds = time.monotonic() - started
    assert again.returncode == 3, again.stderr
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in again.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "pyarrow" in imported or "yaml" in imported, "the list is one of imports"
    assert imported.isdisjoint({"torch", "ray", "diffusers"})
    assert seconds < 5
    after = {name: (done.folder / name).stat().st_mtime_ns for name in shards.files(done.folder)}
    assert after == before


def test_finalizing_again_writes_the_same_bytes(done: Done, shards: ModuleType) -> None:
    paths = [done.folder / name for name in ("index.json", "README.md")]
    paths += sorted((done.folder / "manifest").iterdir())
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert shards.deltah("finalize", done.folder).returncode == 0
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("edit.strengths=[0.2]", "edit.strengths"),
        ("grid.num_steps=7", "grid.num_steps"),
        ("invert.batch_size=5", "invert.batch_size"),
    ],
)
def test_another_config_is_refused_naming_the_field(
    done: Done, shards: ModuleType, change: str, named: str
) -> None:
    before = shards.hashes(done.folder)
    refused = shards.deltah("run", done.config, "--set", change)
    assert refused.returncode == 2
    assert f"  {named}: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert shards.hashes(done.folder) == before


def test_what_changes_no_pixel_is_no_other_config(done: Done, shards: ModuleType) -> None:
    again = shards.deltah(
        "run", done.config, "--set", "execution.max_attempts=7", "--engine", "local"
    )
    assert again.returncode == 3
    assert "2 of 3 shards done, 1 quarantined" in again.stderr


def test_a_driver_that_ends_in_the_sweep_leaves_the_rest_of_it_to_the_next(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 1, 1)
    made = shards.config(tiny_checkpoint, pattern, tmp_path / "run")
    leftover = tmp_path / "run" / "images" / ".tmp-0123456789abcdef"

    def fails(*_arguments: object) -> None:
        leftover.write_bytes(b"of a killed writer")
        raise OSError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(finalize, "collect", fails)
        first = run(made, console=Console(quiet=True))
    assert first.exit_code == 1
    assert "cannot be finalized: the store is away" in first.sentence
    again = run(made, console=Console(quiet=True))
    assert again.exit_code == 0
    assert not leftover.exists()
    assert verify(RunFolder(made.output.folder), deep=True).notes == ()
