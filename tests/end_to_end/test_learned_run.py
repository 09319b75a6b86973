"""Eight shards edited by a learned editor on two Ray workers: the guarantees of any run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SHARDS, PICTURES = 8, 2


def test_a_learned_editor_is_applied_on_ray_with_the_same_bytes_as_in_one_process(
    shards: ModuleType, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    urls = []
    for number in range(SHARDS):
        members = []
        for seed in range(PICTURES * number, PICTURES * (number + 1)):
            members += shards.sample(f"p{seed}", seed)
            members.append((f"p{seed}.other.png", shards.encoded(shards.picture(100 + seed))))
        urls.append(str(shards.write_tar(tmp_path / "in" / f"in-{number}.tar", members)))
    training = {
        "input": {"shards": urls},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "grid": {"num_steps": 6},
        "editor": {"kind": "lora", "name": "other", "rank": 2, "window": [900, 0]},
        "objective": [{"kind": "paired", "file": "other.png"}],
        "training": {"steps": 4, "batch_size": 8},
        "output": {"folder": str(tmp_path / "editor")},
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(training))
    trained = shards.deltah("train", path)
    assert trained.returncode == 0, trained.stderr
    hashes = {}
    for engine, options in (("ray", ["--engine", "ray", "--workers", "2"]), ("local", [])):
        folder = tmp_path / engine
        made = shards.config(
            tiny_checkpoint,
            str(tmp_path / "in" / "*.tar"),
            folder,
            discover={"method": "none"},
            learned={"path": str(tmp_path / "editor")},
            edit={"window": [900, 0], "strengths": [0.5, 1.0]},
        )
        config = shards.write_config(tmp_path / f"{engine}.yaml", made)
        plan = shards.deltah("plan", config)
        done = shards.deltah("run", config, *options, timeout_s=240)
        assert done.returncode == 0, done.stderr
        verified = shards.deltah("verify", folder, "--deep")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        hashes[engine] = shards.hashes(folder)
        commits = sorted((folder / "commit").glob("*.parquet"))
        rows = [row for commit in commits for row in pq.read_table(commit).to_pylist()]
        assert len(rows) == SHARDS * PICTURES * 2
        assert {row["rank"] for row in rows} == {-1}
        (spent,) = {row["network_evaluations"] for row in rows}
        assert f"{spent:.0f} (" in plan.stdout, plan.stdout + plan.stderr
    assert hashes["ray"] == hashes["local"]
