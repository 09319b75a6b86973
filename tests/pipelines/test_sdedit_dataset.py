"""SDEdit as a whole run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import make_plan
from pipelines.report.page import write_report

PICTURES = 4
NONE = {"method": "none"}
EDIT = {"method": "sdedit", "sdedit": {"timesteps": [700, 300], "seeds": 2}}


def config(
    checkpoint: Path, shards: ModuleType, shard: Path, folder: Path, layout: str = "edited"
) -> RunConfig:
    made: RunConfig = shards.config(
        checkpoint, shard, folder, discover=NONE, edit=EDIT,
        output={"folder": str(folder), "layout": layout},
    )  # fmt: skip
    return made


@pytest.mark.parametrize("layout", ["edited", "pairs"])
def test_every_image_is_made_at_every_timestep_with_every_noise(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, layout: str
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(PICTURES))
    made = config(tiny_checkpoint, shards, shard, tmp_path / "run", layout)
    planned = make_plan(made, expand_inputs(made.input.shards))
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_ok, report.n_edits) == (PICTURES, PICTURES * 4) == (4, planned.edits * 4)
    rows = list(pq.read_table(folder.commit_url("a")).to_pylist())
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for row in rows:
        t = (666, 666, 332, 332)[row["edit"]]  # of 166 332 499 666 832 999
        assert (row["t_high"], row["t_low"], row["noise"]) == (t, 166, row["edit"] % 2)
        assert row["strength"] == pytest.approx(math.sqrt(1 - alphas[t]))
        assert (row["direction"], row["rank"], row["injection"]) == (None, None, "sdedit")
        assert (row["region"], row["mask_area"], row["added_directions"]) == ("image", 1.0, [])
        assert math.isnan(row["roir"])
        assert row["network_evaluations"] == planned.evaluations == 2 * (4 + 2)
    assert (planned.inversion, planned.timesteps) == (0, (666, 166))
    assert "no inversion" in dict(planned.rows())["edited timesteps"]
    assert not (tmp_path / "run" / "directions").exists()
    found = verify(folder, deep=True)
    assert found.problems == ()
    assert found.samples_ok == PICTURES
    (tar,) = (tmp_path / "run" / "images").iterdir()
    sides = [json.loads(d) for n, d in shards.members(tar).items() if n.endswith(".json")]
    assert {side["rank"] for side in sides} == {None}
    finalize(folder)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "noise was added" in card
    assert "inverted (" not in card
    assert "edit.sdedit.timesteps" in card
    assert "edit.strengths" not in card
    path = Path(write_report(str(tmp_path / "run")))
    page = path.read_text()
    summary = (path.parent / "data" / "summary.js").read_text()
    assert '"title":"SDEdit, noise 0"' in summary
    assert '"title":"SDEdit, noise 1"' in summary
    table = page.split('id="measurements"')[1].split("</table>")[0]
    assert "-1" not in table.split("<tbody>")[1]


def test_the_same_config_makes_the_same_bytes(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(PICTURES))
    for name in ("one", "two"):
        shards.work(config(tiny_checkpoint, shards, shard, tmp_path / name), [shard])
    assert shards.hashes(tmp_path / "one") == shards.hashes(tmp_path / "two")
    images = shards.images(tmp_path / "one")
    names = sorted(images)
    assert len({images[name].tobytes() for name in names}) == PICTURES * 4


@pytest.mark.parametrize("kind", ["vq", "guided"])
def test_latents_are_noised_where_the_model_works_on_them_and_guidance_is_counted(
    shards: ModuleType,
    backbones: ModuleType,
    backbone: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(2))
    made = shards.config(
        backbone(kind), shard, tmp_path / "run", discover=NONE, edit=EDIT,
        model=backbones.OPTIONS.get(kind, {}),
    )  # fmt: skip
    planned = make_plan(made, expand_inputs(made.input.shards))
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_ok, report.n_edits) == (2, 8)
    rows = pq.read_table(folder.commit_url("a")).to_pylist()
    passes = 2 if kind == "guided" else 1
    assert {r["network_evaluations"] for r in rows} == {planned.evaluations} == {12 * passes}
    assert {image.shape for image in shards.images(tmp_path / "run").values()} == {(16, 16, 3)}
    assert verify(folder, deep=True).problems == ()


def test_less_noise_stays_nearer_to_the_image(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(PICTURES))
    made = shards.config(
        tiny_checkpoint, shard, tmp_path / "run", discover=NONE,
        grid={"num_steps": 20, "spacing": "linspace"},
        edit={"method": "sdedit", "sdedit": {"timesteps": [50, 250, 500]}},
    )  # fmt: skip
    folder, _ = shards.work(made, [shard])
    change = pq.read_table(folder.commit_url("a"))["in_change"].to_numpy().reshape(PICTURES, 3)
    assert (np.diff(change, axis=1) > 0).all()


def test_a_broken_picture_is_accounted_for(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    members = shards.samples(3)
    members[1] = (members[1][0], b"no picture")
    shard = shards.write_tar(tmp_path / "in" / "a.tar", members)
    folder, (report,) = shards.work(
        config(tiny_checkpoint, shards, shard, tmp_path / "run"), [shard]
    )
    assert (report.n_ok, report.n_err) == (2, 1)
    assert verify(RunFolder(folder.root), deep=True).problems == ()


def test_two_timesteps_of_one_grid_node_are_refused(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(1))
    edit: dict[str, Any] = {"method": "sdedit", "sdedit": {"timesteps": [300, 340]}}
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", discover=NONE, edit=edit)
    with pytest.raises(ConfigProblem, match=r"edit\.sdedit\.timesteps: .*\[332, 332\]"):
        make_plan(made, expand_inputs(made.input.shards))
    with pytest.raises(ConfigProblem, match=r"edit\.sdedit\.timesteps"):
        shards.work(made, [shard])
