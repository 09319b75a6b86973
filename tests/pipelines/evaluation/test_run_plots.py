"""The plots of a small real run: which there are, that they show its numbers, and what goes."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib import storage
from lib.metrics.disentanglement import Row, effects, matrix
from lib.metrics.edit_rows import EditRows, edit_rows
from lib.run_folder import RunFolder
from pipelines.evaluation.direction_names import DirectionNames
from pipelines.evaluation.run_plots import PlotPoints, spectra, write_plots

PICTURES = 4
STRENGTHS = (-0.2, -0.1, 0.1, 0.2)


@pytest.fixture(scope="module")
def folder(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    root = tmp_path_factory.mktemp("plots")
    shard = shards.write_tar(root / "in.tar", shards.samples(PICTURES))
    made = shards.config(
        tiny_checkpoint, shard, root / "run", discover={"directions": 2},
        edit={"strengths": list(STRENGTHS)},
    )  # fmt: skip
    found, _ = shards.work(made, [shard])
    assert isinstance(found, RunFolder)
    return found


def rows_of(folder: RunFolder) -> EditRows:
    """The run's rows, as if a classifier had said that smile follows the strength."""
    table = pq.read_table(folder.commit_url("in"))
    strength = table["strength"].to_numpy()
    for name, values in (("smile", 3 * strength), ("gaze", 0.01 * np.ones(len(strength)))):
        table = table.append_column(f"change_{name}", pa.array(values, pa.float32()))
    return edit_rows("in", table, DirectionNames(own=True))


def drawn(folder: RunFolder, *, attributes: bool) -> dict[str, str]:
    rows = rows_of(folder)
    points, found = PlotPoints(), list[Row]()
    points.add(rows)
    if attributes:
        found = matrix(effects(rows))
    write_plots(folder, points, found)
    plots = folder.url("evaluation", "plots")
    return {
        name: storage.read_bytes(f"{plots}/{name}").decode("latin-1")
        for name in storage.list_names(plots)
    }


def test_every_plot_is_there_for_both_pages_and_for_paper(folder: RunFolder) -> None:
    found = drawn(folder, attributes=True)
    names = ("disentanglement", "linearity", "locality", "spectra", "strength")
    assert set(found) == {n + s for n in names for s in (".svg", "-dark.svg", ".pdf")}
    assert drawn(folder, attributes=True) == found, "the same bytes again"
    matrix_texts = re.findall(r">([^<>]+)</text>", found["disentanglement.svg"])
    assert {"left/0", "left/1", "smile", "gaze", "0.45", "0.00"} <= set(matrix_texts), (
        "sign(s) * 3 s over the strengths is 0.45 in the mean, sign(s) * 0.01 is 0"
    )
    assert "left/0: smile" in found["linearity.svg"]


def test_what_is_no_longer_measured_is_no_longer_shown(folder: RunFolder) -> None:
    drawn(folder, attributes=True)
    found = drawn(folder, attributes=False)
    assert {name.partition(".")[0].removesuffix("-dark") for name in found} == {
        "locality", "spectra", "strength",
    }  # fmt: skip


def test_spectra_are_those_of_the_stored_directions(folder: RunFolder) -> None:
    (path,) = (Path(folder.root) / "directions").iterdir()
    stored = pq.read_table(path).drop_columns(["vector"]).to_pylist()
    found = spectra(folder)
    assert list(found) == ["left"]
    assert [rank for rank, _ in found["left"]] == [0, 1]
    for rank, values in found["left"]:
        expected = [row["singular_value"] for row in stored if row["rank"] == rank]
        assert values.tolist() == expected
        assert len(values) == PICTURES


def test_points_are_the_rows_by_region_and_strength(folder: RunFolder) -> None:
    points = PlotPoints()
    points.add(rows_of(folder))
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    assert sorted(points.changes["left"]) == list(STRENGTHS)
    for strength, parts in points.changes["left"].items():
        expected = [r["in_change"] for r in rows if abs(r["strength"] - strength) < 1e-6]
        assert np.concatenate(parts).tolist() == expected
    assert np.concatenate(points.outside["left"]).tolist() == [r["out_change"] for r in rows]
    assert not points.renoised
