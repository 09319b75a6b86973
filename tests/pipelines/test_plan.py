"""What a plan foretells, held against the run that it describes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from lib.problems import ConfigProblem, ModelProblem
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import Plan, make_plan


def plan(config: RunConfig) -> Plan:
    return make_plan(config, expand_inputs(config.input.shards))


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "asymmetric": {},
    "symmetric": {"edit": {"injection": "symmetric", "strengths": [0.1]}},
    "refined, discovered above the window": {
        "invert": {"refinements": 1},
        "discover": {"timesteps": [900]},
        "edit": {"window": [700, 400]},
    },
    "exact, with two evaluations a step": {"invert": {"method": "edict"}},
    "exact, with two evaluations a step, symmetric": {
        "invert": {"method": "edict"},
        "edit": {"injection": "symmetric"},
    },
    "exact, with one evaluation more": {"invert": {"method": "bdia"}},
    "stored noise": {"invert": {"method": "ddpm", "eta": [[0, 0.0], [500, 1.0]]}},
    "two regions, two directions": {
        "segment": {"regions": {"left": {"box": [0, 0, 0.5, 1]}, "top": {"box": [0, 0, 1, 0.5]}}},
        "discover": {"directions": 2},
        "edit": {"strengths": [-0.1, 0.05, 0.1]},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_edits_and_evaluations_are_those_of_the_run(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, name: str
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(2))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", **VARIANTS[name])
    planned = plan(made)
    folder, (report,) = shards.work(made, [shard])
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    assert planned.images == report.n_in == 2
    assert planned.edits * 2 == report.n_edits == len(rows)
    assert {row["network_evaluations"] for row in rows} == {planned.evaluations}
    assert {(row["t_high"], row["t_low"]) for row in rows} == {planned.timesteps}
    # Tars are padded to 10 kB and pictures here are tiny, so only the order of magnitude holds.
    (tar,) = (tmp_path / "run" / "images").iterdir()
    assert planned.output.results / 4 < tar.stat().st_size < planned.output.results * 4 + 10240


def test_images_are_estimated_from_the_sizes_of_the_shards(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 5, 20)
    (tmp_path / "in" / "in-0.tar").write_bytes(b"damaged, so the next one is counted")
    made = shards.config(tiny_checkpoint, pattern, tmp_path / "run")
    assert plan(made).shards == 5
    assert plan(made).images == pytest.approx(80, rel=0.1)
    assert not (tmp_path / "run").exists()


def test_a_library_must_be_there_and_be_one(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(1))
    library = {"method": "library", "path": str(tmp_path / "none"), "max_directions": 7}
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", discover=library)
    with pytest.raises(ConfigProblem, match=r"discover\.path"):
        plan(made)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ConfigProblem, match=r"discover\.path: expected a directions Parquet file"):
        plan(made)


def test_what_does_not_fit_is_refused_by_its_name(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(1))

    def with_(**sections: dict[str, Any]) -> RunConfig:
        made: RunConfig = shards.config(tiny_checkpoint, shard, tmp_path / "run", **sections)
        return made

    with pytest.raises(ConfigProblem, match=r"edit\.window.*got \[330, 170\]"):
        plan(with_(edit={"window": [330, 170]}))
    with pytest.raises(ModelProblem, match="is no folder"):
        plan(with_(model={"checkpoint": str(tmp_path / "nowhere")}))
    with pytest.raises(ConfigProblem, match="no file matches"):
        plan(with_(input={"shards": [str(tmp_path / "*.tgz")]}))


def test_a_plan_imports_neither_torch_nor_ray_and_writes_nothing(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(3))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run")
    config = shards.write_config(tmp_path / "run.yaml", made)
    script = (
        "import sys, json; from cluster.cli import app; "
        f"app(['plan', {str(config)!r}], standalone_mode=False); "
        "print(json.dumps(sorted({'torch', 'ray', 'diffusers'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=shards.environment(COLUMNS="200"),
        check=True,
    )
    *table, modules = done.stdout.splitlines()
    assert json.loads(modules) == []
    text = "\n".join(table)
    assert "832 down to 332; inversion stops at 832" in text
    assert str(plan(made).evaluations) in text
    assert not (tmp_path / "run").exists()
