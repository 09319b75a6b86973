"""Libraries built from real runs and from planted directions, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow.parquet as pq
import pytest
import torch

from lib.direction import Direction, Scores, content_id, stored
from lib.directions.direction_table import to_table
from lib.directions.library_rows import read_rows
from lib.directions.library_store import read_library_folder, write_library
from lib.files import parquet
from lib.problems import ConfigProblem
from pipelines.library_build import Merge, build_library
from pipelines.library_changes import Recipe, add_directions, compose_direction, label_direction
from pipelines.library_report import write_library_report

SHAPE = (1, 32, 4, 4)
ANGLE = 30.0


def direction(
    vector: torch.Tensor, image: int, value: float, region: str = "eyes", **more: object
) -> Direction:
    vector_SCYX = stored(vector.view(SHAPE), "float16")
    made = Direction(
        vector_SCYX=vector_SCYX, id=content_id(vector_SCYX, "h", "after", "m" * 64, (368,)),
        space="h", h_layer="after", model="m" * 64, timesteps=(368,), method="jacobian",
        parameters={}, region=region, mask_sha256="", shard="s", index=image, key=f"k{image}",
        rank=0, singular_value=value, gap=0.5, residual=0.1, angle=0.1, converged=True,
        jvp_count=7, vjp_count=5, sign_rule="brightens", h_norm=2.0,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def planted(images: int = 8, seed: int = 0) -> tuple[list[Direction], torch.Tensor]:
    """Two directions an image, at 25 degrees from two centres, and one of its own."""
    generator = torch.Generator().manual_seed(seed)
    centre_2D = torch.linalg.qr(torch.randn(512, 2, generator=generator))[0].T
    found = []
    for image in range(images):
        for rank, centre_D in enumerate(centre_2D):
            noise_D = torch.randn(512, generator=generator)
            noise_D -= (noise_D @ centre_D) * centre_D
            vector_D = centre_D + 0.466 * noise_D / noise_D.norm()
            sign = 1 if torch.rand((), generator=generator) < 0.5 else -1
            found.append(direction(sign * vector_D, image, 3.0 - rank - 0.01 * image, rank=rank))
        found.append(direction(torch.randn(512, generator=generator), image, 0.1, rank=2))
    return found, centre_2D


def write(path: Path, directions: Sequence[Direction], dtype: str = "float16") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet.encode(to_table(directions, dtype)))
    return str(path)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_planted_directions_become_one_row_each_with_support_and_spread(tmp_path: Path) -> None:
    found, centre_2D = planted()
    source = write(tmp_path / "a.parquet", found)
    library, (report,) = build_library([source], str(tmp_path / "lib"), Merge())
    assert (report.found, report.kept, report.largest_support) == (24, 10, 8)
    first, second = library.directions[:2]
    for merged, centre_D in ((first, centre_2D[0]), (second, centre_2D[1])):
        # 8 members at 25 degrees: the mean is at atan(tan(25) / sqrt(8)) = 9.4 degrees.
        assert abs(float(merged.vector_SCYX.flatten() @ centre_D)) > 0.98
        assert merged.support == 8
        assert merged.spread == pytest.approx(0.39, abs=0.04)
        assert len(merged.parents) == 8
        assert (merged.shard, merged.index, merged.gap) == (None, None, None)
        assert merged.jvp_count == 8 * 7
    assert first.singular_value == pytest.approx(2.965)
    strongest = found[0].vector_SCYX.flatten()
    assert float(first.vector_SCYX.flatten() @ strongest) > 0.8  # with its sign
    alone = [d for d in library.directions if d.support == 1]
    assert {d.id for d in alone} == {d.id for d in found if d.rank == 2}
    assert [d.rank for d in library.directions] == list(range(10))


@pytest.mark.parametrize("method", ["cluster", "subspace"])
def test_the_order_of_files_and_rows_changes_no_byte(tmp_path: Path, method: str) -> None:
    found, _ = planted()
    one, other = found[:12], found[12:]
    forward = [write(tmp_path / "1/a.parquet", one), write(tmp_path / "1/b.parquet", other)]
    build_library(forward, str(tmp_path / "lib-1"), Merge(method))
    build_library(forward[::-1], str(tmp_path / "lib-2"), Merge(method))
    backward = [
        write(tmp_path / "2/a.parquet", one[::-1]),
        write(tmp_path / "2/b.parquet", other[::-1]),
    ]
    build_library(backward, str(tmp_path / "lib-3"), Merge(method))
    table = "directions.parquet"
    assert digests(tmp_path / "lib-1") == digests(tmp_path / "lib-2")
    assert digests(tmp_path / "lib-1")[table] == digests(tmp_path / "lib-3")[table]
    assert set(digests(tmp_path / "lib-1")) == {table, "library.json"}


def test_what_images_share_in_turned_bases_only_the_subspace_finds(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    plane_2D = torch.linalg.qr(torch.randn(512, 2, generator=generator))[0].T
    found = []
    for image in range(6):
        turn = torch.tensor(image * torch.pi / 12)
        for rank, row in enumerate(([turn.cos(), turn.sin()], [-turn.sin(), turn.cos()])):
            vector_D = torch.tensor(row) @ plane_2D + 0.004 * torch.randn(512, generator=generator)
            found.append(direction(vector_D, image, 2.0 - rank, rank=rank))
    source = write(tmp_path / "a.parquet", found)
    clustered, _ = build_library([source], str(tmp_path / "c"), Merge("cluster", 20))
    shared, _ = build_library([source], str(tmp_path / "s"), Merge("subspace", 20))
    assert max(d.support for d in clustered.directions) < 6
    assert [d.support for d in shared.directions] == [6, 6]
    spanned_2D = torch.stack([d.vector_SCYX.flatten() for d in shared.directions])
    assert torch.linalg.svdvals(spanned_2D @ plane_2D.T).min() > 0.99


def test_regions_methods_and_labels_are_never_merged_with_one_another(tmp_path: Path) -> None:
    vector_D = torch.randn(512, generator=torch.Generator().manual_seed(2))
    near = [vector_D + 0.01 * k * torch.eye(512)[k] for k in range(5)]
    found = [
        direction(near[0], 0, 1.0),
        direction(near[1], 1, 1.0, region="mouth"),
        direction(near[2], 2, 1.0, method="localised"),
        direction(near[3], 3, 1.0, label="open"),
        direction(near[4], 4, 1.0, method="pca", shard=None, index=None, key=None, support=40),
    ]
    library, reports = build_library(
        [write(tmp_path / "a.parquet", found)], str(tmp_path / "lib"), Merge()
    )
    assert {d.id for d in library.directions} == {d.id for d in found}
    assert len(reports) == 5


def test_the_same_run_twice_counts_once_and_a_library_can_be_a_source(tmp_path: Path) -> None:
    found, _ = planted()
    source = write(tmp_path / "a.parquet", found)
    copy = write(tmp_path / "b.parquet", found, "float32")
    once, _ = build_library([source], str(tmp_path / "1"), Merge(min_support=2))
    twice, _ = build_library([source, copy, source], str(tmp_path / "2"), Merge(min_support=2))
    assert [d.id for d in twice.directions] == [d.id for d in once.directions]
    assert [d.support for d in twice.directions] == [8, 8]
    more, _ = planted(seed=0)
    other = [replace(d, shard="t", vector_SCYX=-d.vector_SCYX, id=d.id[::-1]) for d in more]
    joined, _ = build_library(
        [str(tmp_path / "1"), write(tmp_path / "c.parquet", other)],
        str(tmp_path / "3"),
        Merge(min_support=2),
    )
    assert [d.support for d in joined.directions] == [16, 16]


def test_two_runs_of_the_tiny_model_become_one_library(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    runs = []
    for number in range(2):
        shard = shards.write_tar(
            tmp_path / f"in-{number}" / f"s{number}.tar", shards.samples(2, first=10 * number)
        )
        made = shards.config(tiny_checkpoint, shard, tmp_path / f"run-{number}")
        shards.work(made, [shard])
        runs.append(str(tmp_path / f"run-{number}"))
    library, (report,) = build_library(runs, str(tmp_path / "lib"), Merge(angle_degrees=80))
    assert (report.region, report.found) == ("left", 4)
    assert sum(d.support for d in library.directions) == 4
    record = json.loads((tmp_path / "lib" / "library.json").read_text())
    assert len(record["built"]["runs"]) == 1  # one config and model: one fingerprint
    assert len(record["built"]["files"]) == 2
    inputs = [
        {"shard": f"s{number}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for number, path in enumerate(sorted(tmp_path.glob("in-*/s*.tar")))
    ]
    assert (record["built"]["inputs"], record["built"]["images"]) == (inputs, [])
    again, _ = build_library([str(tmp_path / "lib")], str(tmp_path / "lib2"), Merge())
    assert again.record["built"]["inputs"] == inputs
    files = sorted(str(path) for run in runs for path in Path(run, "directions").iterdir())
    plain, _ = build_library(files, str(tmp_path / "lib3"), Merge())
    assert (plain.record["built"]["inputs"], plain.record["built"]["images"]) == (
        [],
        [{"shard": f"s{shard}", "index": index} for shard in range(2) for index in range(2)],
    )
    assert str(tmp_path) not in json.dumps(record)
    ran = shards.deltah("library", "ls", tmp_path / "lib")
    assert ran.returncode == 0
    assert all(row["id"] in ran.stdout for row in read_rows(str(tmp_path / "lib")))


def test_duckdb_finds_the_ten_most_local_eye_directions_in_one_query(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    scored = [
        direction(torch.randn(512, generator=generator), k, 1.0, "eyes" if k % 2 else "mouth",
                  scores=Scores(4, 0.1, 0.15, ((k * 7) % 30) / 30, 0.5, 0.9, 0.8, 0.3))
        for k in range(30)
    ]  # fmt: skip
    write_library(str(tmp_path / "lib"), {}, scored)
    rows = duckdb.sql(
        f"SELECT id, roir FROM '{tmp_path}/lib/directions.parquet'"
        " WHERE region = 'eyes' ORDER BY roir LIMIT 10"
    ).fetchall()
    expected = sorted((d.scores.roir, d.id) for d in scored if d.region == "eyes" and d.scores)
    assert [row[0] for row in rows] == [identity for _, identity in expected[:10]]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Two directions whose ids begin alike, and one of another region."""
    generator = torch.Generator().manual_seed(6)
    made = [direction(torch.randn(512, generator=generator), k, 2.0 - k) for k in range(3)]
    made = [
        replace(d, id=identity)
        for d, identity in zip(made, ("abc1" + "0" * 12, "abd2" + "0" * 12, "f" * 16), strict=True)
    ]
    made[2] = replace(made[2], region="mouth")
    write_library(str(tmp_path / "lib"), {}, made)
    return tmp_path / "lib"


def test_a_direction_is_named_by_the_first_digits_of_its_id(library: Path) -> None:
    label_direction(str(library), "abd", "smile <b>&</b>")
    labels = {row["id"]: row["label"] for row in read_rows(str(library))}
    assert labels == {"abc1" + "0" * 12: None, "abd2" + "0" * 12: "smile <b>&</b>", "f" * 16: None}
    page = Path(write_library_report(str(library))).read_text()
    assert "smile &lt;b&gt;&amp;&lt;/b&gt;" in page
    assert "<b>&</b>" not in page
    label_direction(str(library), "abd", "")
    assert all(row["label"] is None for row in read_rows(str(library)))


def test_a_combination_is_the_weighted_sum_less_what_is_projected_out(library: Path) -> None:
    directions = read_library_folder(str(library)).directions
    before = {d.id[:3]: d.vector_SCYX.double().flatten() for d in directions}
    made = compose_direction(str(library), Recipe((("abc", 0.7), ("abd", -0.3)), ("ff",), "mixed"))
    total_D = 0.7 * before["abc"] - 0.3 * before["abd"]
    total_D -= (total_D @ before["fff"]) * before["fff"] / (before["fff"] @ before["fff"])
    stored_one = next(d for d in read_library_folder(str(library)).directions if d.id == made.id)
    torch.testing.assert_close(
        stored_one.vector_SCYX.double().flatten(), total_D / total_D.norm(), atol=1e-6, rtol=0
    )
    assert (stored_one.label, stored_one.region, stored_one.rank) == ("mixed", "eyes", 2)
    assert [parent[:3] for parent in stored_one.parents] == ["abc", "abd", "fff"]
    with pytest.raises(ConfigProblem, match="holds this combination already"):
        compose_direction(str(library), Recipe((("abc", 0.7), ("abd", -0.3)), ("ff",), "again"))


MANY, FEW = Merge(min_support=5), Merge()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda lib: label_direction(lib, "ab", "x"), "abc10*, abd20* begin so"),
        (lambda lib: label_direction(lib, "e", "x"), "but none begins so"),
        (lambda lib: label_direction(lib, "", "x"), "but none begins so"),
        (lambda lib: label_direction(lib, "abc", "two\nlines"), "printable"),
        (lambda lib: compose_direction(lib, Recipe((), (), "x")), "at least one direction"),
        (lambda lib: compose_direction(lib, Recipe((("f", 1), ("f", -1)), (), "x")), "is zero"),
        (lambda lib: compose_direction(lib, Recipe((("f", 1),), ("ff",), "x")), "in the span"),
        (lambda lib: build_library([lib], lib, FEW), "holds a library already"),
        (lambda lib: build_library([lib], lib + "2", MANY), "of at least 5 images"),
        (lambda lib: build_library([lib + "/none"], lib + "2", FEW), "found none at"),
        (lambda lib: Merge(angle_degrees=90), "between 0 and 90"),
        (lambda lib: read_rows(lib + "/none"), "deltah library build"),
    ],
)
def test_what_cannot_be_done_is_said(
    library: Path, call: Callable[[str], object], sentence: str
) -> None:
    before = digests(library)
    with pytest.raises(ConfigProblem, match=sentence):
        call(str(library))
    assert digests(library) == before


def test_directions_of_another_model_are_refused_with_the_names_of_both_files(
    tmp_path: Path,
) -> None:
    vector_D = torch.ones(512)
    one = write(tmp_path / "one.parquet", [direction(vector_D, 0, 1.0)])
    for name, change in (
        ("model", {"model": "n" * 64}),
        ("layer", {"h_layer": "before"}),
        ("space", {"space": "x"}),
    ):
        other = write(tmp_path / f"{name}.parquet", [direction(vector_D, 1, 1.0, **change)])
        with pytest.raises(ConfigProblem, match=r"one model") as caught:
            build_library([one, other], str(tmp_path / "lib"), Merge())
        assert "one.parquet" in str(caught.value)
        assert f"{name}.parquet" in str(caught.value)
        library = write_library(str(tmp_path / f"lib-{name}"), {}, [direction(vector_D, 0, 1.0)])
        with pytest.raises(ConfigProblem, match="one model"):
            add_directions(library.root, [direction(-vector_D, 1, 1.0, **change)], {})


def test_an_empty_or_old_table_is_refused(tmp_path: Path) -> None:
    table = to_table([direction(torch.ones(512), 0, 1.0)], "float16")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(ConfigProblem, match="no rows"):
        build_library([str(tmp_path / "empty.parquet")], str(tmp_path / "lib"), Merge())
    pq.write_table(table.drop_columns(["support"]), tmp_path / "old.parquet")
    with pytest.raises(ConfigProblem, match="lacks the columns support"):
        build_library([str(tmp_path / "old.parquet")], str(tmp_path / "lib"), Merge())
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigProblem, match="whole Parquet file"):
        build_library([str(tmp_path / "cut.parquet")], str(tmp_path / "lib"), Merge())


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_vector_that_is_no_direction_is_refused_by_name(tmp_path: Path, value: float) -> None:
    good = direction(torch.ones(512), 0, 1.0)
    bad = replace(good, id="b" * 16, vector_SCYX=torch.full(SHAPE, value))
    source = write(tmp_path / "bad.parquet", [good, bad])
    with pytest.raises(ConfigProblem, match=r"bad\.parquet: direction b{16} is zero or not finite"):
        build_library([source], str(tmp_path / "lib"), Merge())
