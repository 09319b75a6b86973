"""Plans and fingerprints of runs that edit nothing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.plan import Plan, make_plan

PCA: dict[str, Any] = {"method": "pca", "components": 2, "sketch_rank": 8}
LABELS: dict[str, Any] = {"method": "supervised", "labels": {"a": {"field": "a"}}, "examples": 4}
JACOBIAN: dict[str, Any] = {"method": "jacobian", "directions": 2, "max_rounds": 3, "chunk": 4}


@pytest.fixture
def make(tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path) -> Any:
    def make(discover: dict[str, Any], **changes: Any) -> RunConfig:
        members = [
            member
            for name, data in shards.samples(3)
            for member in ((name, data), (name.replace(".png", ".json"), b'{"a": 1}'))
        ]
        shard = shards.write_tar(tmp_path / "in.tar", members)
        made = shards.config(tiny_checkpoint, shard, tmp_path / "run").model_dump(mode="json")
        made |= {"pipeline": "direction_library", "discover": discover}
        for name, section in changes.items():
            made[name] = made[name] | section if isinstance(section, dict) else section
        return RunConfig.model_validate(made)

    return make


def plan(config: RunConfig) -> Plan:
    return make_plan(config, expand_inputs(config.input.shards))


@pytest.mark.parametrize(
    "discover",
    [
        PCA,
        PCA | {"timesteps": [300]},
        LABELS,
        LABELS | {"timesteps": [300, 900]},
        JACOBIAN,
        PCA | {"capture": "inversion"},
    ],
    ids=["pca", "pca at one", "labels", "labels at two", "jacobian", "pca of inversion"],
)
def test_evaluations_and_sizes_are_those_of_the_run(
    make: Any, shards: ModuleType, tmp_path: Path, discover: dict[str, Any]
) -> None:
    made = make(discover, invert={"refinements": 1}, output={"vector_dtype": "float32"})
    planned = plan(made)
    folder, (report,) = shards.work(made, [tmp_path / "in.tar"])
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    assert {row["network_evaluations"] for row in rows} == {planned.evaluations}
    assert {row["directions"] for row in rows} == {planned.directions}
    assert {row["psnr"] for row in rows} == {None}
    assert (planned.edits, planned.decoding, report.n_edits) == (0, 0, 0)
    kind = "directions" if planned.directions else "statistics"
    (file,) = (tmp_path / "run" / kind).iterdir()
    assert planned.output.results / 3 < file.stat().st_size < planned.output.results * 3 + 20_000
    assert all(label != "edits an image" for label, _ in planned.rows())


@pytest.mark.parametrize("method", ["ddim", "edict", "ddpm"])
@pytest.mark.parametrize("discover", [PCA, JACOBIAN], ids=["pca", "jacobian"])
def test_a_run_may_report_how_well_its_images_come_back(
    make: Any, shards: ModuleType, tmp_path: Path, discover: dict[str, Any], method: str
) -> None:
    made = make(discover, invert={"method": method, "report": True})
    folder, _ = shards.work(made, [tmp_path / "in.tar"])
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    assert {row["network_evaluations"] for row in rows} == {plan(made).evaluations}
    assert plan(made).decoding > 0
    assert all(row["psnr"] > (5 if method == "ddim" else 40) for row in rows)


def test_timesteps_that_do_not_fit_the_grid_are_refused(make: Any) -> None:
    with pytest.raises(ConfigProblem, match=r"got \[320, 340\], which are \[332, 332\] there"):
        plan(make(PCA | {"timesteps": [320, 340]}))
    made = make(JACOBIAN | {"space": "x", "timesteps": [999]}, edit={"window": [700, 300]})
    assert plan(made).timesteps == (999, 999)
    edits = made.model_copy(update={"pipeline": "edit_dataset"})
    with pytest.raises(ConfigProblem, match="x is to be moved at timestep 999, and decoding"):
        plan(edits)


def test_what_edits_would_be_does_not_enter_the_fingerprint_of_a_library(make: Any) -> None:
    changes: dict[str, Any] = {
        "edit": {"strengths": [0.5], "injection": "symmetric"},
        "output": {"layout": "pairs", "format": "jpeg", "quality": 50},
    }
    for discover in (PCA, LABELS, JACOBIAN):
        assert fingerprint_fields(make(discover)) == fingerprint_fields(make(discover, **changes))


def test_the_window_enters_only_where_it_says_what_is_studied(make: Any) -> None:
    window = {"edit": {"window": [700, 300]}}
    assert fingerprint_fields(make(PCA)) != fingerprint_fields(make(PCA, **window))
    at_one = PCA | {"timesteps": [300]}
    assert fingerprint_fields(make(at_one)) == fingerprint_fields(make(at_one, **window))
    assert fingerprint_fields(make(JACOBIAN)) == fingerprint_fields(make(JACOBIAN, **window))


def test_regions_enter_only_where_they_are_used(make: Any) -> None:
    regions = {"segment": {"regions": {"top": {"box": [0, 0, 1, 0.5]}}}}
    assert fingerprint_fields(make(PCA)) == fingerprint_fields(make(PCA, **regions))
    assert fingerprint_fields(make(JACOBIAN)) != fingerprint_fields(make(JACOBIAN, **regions))


def test_a_classifier_enters_by_what_is_in_it_and_not_by_its_path(make: Any) -> None:
    labels = {"a": {"class": "smile"}}
    fields = fingerprint_fields(make(LABELS | {"labels": labels, "classifier": "embedded"}))
    assert "classifier" not in fields["discover"]
    assert len(fields["discover"]["classifier_sha256"]) == 64
    assert fields["discover"]["labels"] == labels
