"""Runs towards reference images: what their edits do, what is stored, counted and refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lib.directions.direction_table import from_table
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.library_build import Merge, build_library
from pipelines.plan import make_plan

DISCOVER = {"method": "reference", "basis": 8, "rounds": 2, "chunk": 5}
SIDE_FILE = {"reference": {"file": "reference.png"}}


@dataclass(frozen=True)
class World:
    """Three pictures with references and one run of them."""

    shard: Path
    made: RunConfig
    folder: RunFolder
    rows: list[dict[str, Any]]
    members: list[tuple[str, bytes]]


def members(shards: ModuleType, count: int = 3) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for number in range(count):
        key = f"picture-{number}"
        found += shards.sample(key, number)
        found.append((f"{key}.reference.png", shards.encoded(shards.picture(50 + number))))
    return found


@pytest.fixture(scope="module")
def world(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> World:
    root = tmp_path_factory.mktemp("references")
    content = members(shards)
    shard = shards.write_tar(root / "in" / "in.tar", content)
    made = shards.config(
        tiny_checkpoint,
        shard,
        root / "run",
        discover=DISCOVER | SIDE_FILE,
        edit={"strengths": [0.01, 1.0]},
        output={"folder": str(root / "run"), "layout": "pairs"},
    )
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_in, report.n_ok, report.n_err, report.n_edits) == (3, 3, 0, 6)
    assert verify(folder, deep=True).problems == ()
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    return World(shard, made, folder, rows, content)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def test_an_edit_at_strength_1_is_nearer_to_the_reference_in_the_region(
    world: World, shards: ModuleType
) -> None:
    edited = shards.images(Path(world.folder.url("images")).parent)
    references = dict(world.members)
    found = {d.index: d for d in stored(world.folder)}
    for hardly, whole in zip(world.rows[::2], world.rows[1::2], strict=True):
        d = found[whole["index"]]
        assert (hardly["strength"], whole["strength"]) == (pytest.approx(0.01), 1.0)
        assert d.unit_strength not in (0.0, 1.0)
        reference = pixels(references[f"{whole['key']}.reference.png"])[:, :8]
        before = np.square(edited[hardly["member"]][:, :8] - reference).sum()
        after = np.square(edited[whole["member"]][:, :8] - reference).sum()
        assert after < before
        assert 0 < d.parameters["explained"] < 1


def stored(folder: RunFolder) -> list[Any]:
    return [
        d
        for path in sorted(Path(folder.url("directions")).iterdir())
        for d in from_table(pq.read_table(path))
    ]


def test_its_network_evaluations_are_at_most_those_of_the_plan(world: World) -> None:
    planned = make_plan(world.made, expand_inputs(world.made.input.shards))
    assert (planned.images, planned.edits, planned.directions) == (3, 2, 1)
    assert planned.jacobian_products == 16
    spent = {row["network_evaluations"] for row in world.rows}
    assert max(spent) == planned.evaluations
    assert all((d.jvp_count, d.vjp_count) == (8, 8) for d in stored(world.folder))


def test_one_image_for_all_counts_by_its_content(
    world: World, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    def config(name: str, seed: int) -> RunConfig:
        path = tmp_path / name
        path.write_bytes(shards.encoded(shards.picture(seed)))
        reference = {"reference": {"image": str(path)}}
        made: RunConfig = shards.config(
            tiny_checkpoint,
            shards.write_tar(tmp_path / "in.tar", shards.samples(2)),
            tmp_path / "run",
            discover=DISCOVER | reference,
            edit={"strengths": [1.0]},
        )
        return made

    one, same, other = config("a.png", 7), config("b.png", 7), config("c.png", 8)
    assert fingerprint_fields(one) == fingerprint_fields(same) != fingerprint_fields(other)
    folder, (report,) = shards.work(one, [tmp_path / "in.tar"])
    assert (report.n_ok, report.n_edits) == (2, 2)
    hashes = {d.parameters["reference_sha256"] for d in stored(folder)}
    assert hashes == {fingerprint_fields(one)["discover"]["reference"]["sha256"]}
    absent = one.model_copy(
        update={"discover": one.discover.model_copy(update={"reference": missing(tmp_path)})}
    )
    with pytest.raises(ConfigProblem, match=r"discover\.reference\.image: .* found nothing at"):
        fingerprint_fields(absent)


def missing(folder: Path) -> Any:
    from pipelines.reference_config import ReferenceImage

    return ReferenceImage(image=str(folder / "no.png"))


def test_references_that_lack_are_broken_or_show_nothing_else_are_error_rows(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    whole = members(shards, 4)
    files = [whole[0], whole[2], ("picture-1.reference.png", b"no image at all"), whole[4]]
    same = ("picture-2.reference.png", whole[4][1])
    shard = shards.write_tar(tmp_path / "in.tar", [*files, same, whole[6], whole[7]])
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", discover=DISCOVER | SIDE_FILE)
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_in, report.n_ok, report.n_err) == (4, 1, 3)
    errors = [
        row
        for path in Path(folder.url("errors")).rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    kinds = {row["index"]: (row["stage"], row["kind"]) for row in errors}
    assert kinds == {
        0: ("discover", "missing_reference"),
        1: ("discover", "not_an_image"),
        2: ("discover", "no_direction"),
    }


def test_directions_of_a_set_of_sources_become_a_library_and_depend_on_the_window_alone(
    world: World, shards: ModuleType, tmp_path: Path
) -> None:
    def run(name: str, **edit: Any) -> tuple[RunConfig, RunFolder]:
        values = world.made.model_dump(mode="json")
        values["pipeline"] = "direction_library"
        values["edit"] |= edit
        values["output"] = {"folder": str(tmp_path / name)}
        made = RunConfig.model_validate(values)
        return made, shards.work(made, [world.shard])[0]

    made, folder = run("found")
    assert [d.id for d in stored(folder)] == [d.id for d in stored(world.folder)]
    planned = make_plan(made, expand_inputs(made.input.shards))
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    assert max(row["network_evaluations"] for row in rows) == planned.evaluations
    library, (report,) = build_library(
        [folder.root], str(tmp_path / "lib"), Merge(angle_degrees=80)
    )
    assert (report.method, report.found) == ("reference", 3)
    assert sum(d.support for d in library.directions) == 3
    more = made.model_copy(update={"edit": made.edit.model_copy(update={"strengths": (3.0,)})})
    assert fingerprint_fields(more) == fingerprint_fields(made)
    other, elsewhere = run("other", window=[700, 300])
    assert fingerprint_fields(other) != fingerprint_fields(made)
    assert [d.id for d in stored(elsewhere)] != [d.id for d in stored(folder)]


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        ("pixel", {"invert": {"method": "edict"}}),
        ("pixel", {"edit": {"injection": "symmetric", "strengths": [1.0], "reach": "found"}}),
        ("vq", {"invert": {"method": "ddpm"}}),
        ("guided", {}),
    ],
    ids=["two states", "symmetric, at its own timestep", "latents, stored noise", "guided"],
)
def test_references_are_approached_by_every_sampler_and_in_latents(
    kind: str,
    sections: dict[str, Any],
    backbone: Callable[[str], Path],
    shards: ModuleType,
    tmp_path: Path,
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", members(shards, 1))
    model = {"checkpoint": str(backbone(kind))}
    if kind == "guided":
        model |= {"prompt": "a face", "guidance_scale": 2.0}
    options = {"edit": {"strengths": [1.0]}, "model": model} | sections
    made = shards.config(
        backbone(kind), shard, tmp_path / "run", discover=DISCOVER | SIDE_FILE, **options
    )
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_ok, report.n_edits) == (1, 1)
    (found,) = stored(folder)
    assert 0 < found.parameters["explained"] <= 1
    (row,) = pq.read_table(folder.commit_url("in")).to_pylist()
    planned = make_plan(made, expand_inputs(made.input.shards)).evaluations
    # The plan does not foresee trials beyond the first, nor those that were not needed.
    assert 0.5 * planned < row["network_evaluations"] < 3 * planned
