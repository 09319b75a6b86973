"""The configs of the planning benchmark are those of runs, and its figures those of the files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import planning
from pipelines.config_file import load_config


@pytest.mark.parametrize("label", planning.CONFIGS)
def test_every_config_is_of_one_local_worker_on_the_given_shards(
    tmp_path: Path, label: str
) -> None:
    path = planning.write_config("a", planning.CONFIGS[label], tmp_path, ["/in/a.tar"])
    made = load_config(str(path), ())
    assert made.input.shards == ("/in/a.tar",)
    assert made.output.folder == str(tmp_path / "a" / "run")
    assert (made.execution.engine, made.execution.workers) == ("local", 1)


def test_what_is_found_is_what_the_run_took_and_left(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(2))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run")
    config = shards.write_config(tmp_path / "run.yaml", made)
    before = planning.foretold(config, 2)
    after = planning.found(config, tmp_path / "run")
    (done,) = shards.events(tmp_path / "run", "shard_done")
    assert after.model_s == done["report"]["model_s"] < after.wall_s
    parts = ("images/", "directions/", "commit/", "manifest/")
    names = [name for name in shards.files(tmp_path / "run") if name.startswith(parts)]
    assert after.bytes_ == sum((tmp_path / "run" / name).stat().st_size for name in names)
    assert before.bytes_ == pytest.approx(after.bytes_, rel=0.1)
    assert before.wall_s > before.model_s > 0
