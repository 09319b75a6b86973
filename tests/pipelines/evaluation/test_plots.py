"""The plots of a small real run: which there are, that they show its numbers, and what goes."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.ledger.commit_record import read_commit
from lib.ledger.run_folder import RunFolder
from lib.metrics.disentanglement import Row, effects, matrix
from lib.metrics.edit_rows import EditRows, edit_rows
from pipelines.evaluation.direction_names import DirectionNames
from pipelines.evaluation.plots import PlotValues, read_spectra, write_plots

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


def rows_of(folder: RunFolder, *, attributes: bool) -> EditRows:
    """The run's rows, and as if a classifier had said that smile follows the strength."""
    table = pq.read_table(folder.commit_url("in"))
    strength = table["strength"].to_numpy()
    if attributes:
        for name, values in (("smile", 3 * strength), ("gaze", 0.01 * np.ones(len(strength)))):
            table = table.append_column(f"change_{name}", pa.array(values, pa.float32()))
    return edit_rows("in", table, DirectionNames(own=True))


def drawn(folder: RunFolder, target: Path, *, attributes: bool) -> dict[str, str]:
    rows = rows_of(folder, attributes=attributes)
    values = PlotValues(1.0)
    values.add(rows)
    found: list[Row] = matrix(effects(rows)) if attributes else []
    write_plots(str(target), values, read_spectra(folder, [read_commit(_commit(folder))]), found)
    plots = target / "plots"
    return {
        str(path.relative_to(plots)): path.read_bytes().decode("latin-1")
        for path in plots.rglob("*.*")
    }


def _commit(folder: RunFolder) -> str:
    return folder.commit_url("in")


def files(*names: str) -> set[str]:
    return {path for n in names for path in (f"{n}.svg", f"{n}.pdf", f"dark/{n}.svg")}


def test_every_plot_is_there_for_both_pages_and_for_paper(
    folder: RunFolder, tmp_path: Path
) -> None:
    found = drawn(folder, tmp_path, attributes=True)
    assert found.keys() == files(
        "attributes", "disentanglement", "linearity", "locality", "spectra"
    )
    assert drawn(folder, tmp_path, attributes=True) == found, "the same bytes again"
    matrix_texts = set(re.findall(r">([^<>]+)</text>", found["disentanglement.svg"]))
    assert {"left/0", "left/1", "smile", "gaze", "0.45", "0.00"} <= matrix_texts, (
        "sign(s) * 3 s over the strengths is 0.45 in the mean, sign(s) * 0.01 is 0"
    )
    assert {"left/0: smile", "left/1: smile"} <= set(
        re.findall(r">([^<>]+)</text>", found["attributes.svg"])
    )


def test_what_is_no_longer_measured_is_no_longer_shown(folder: RunFolder, tmp_path: Path) -> None:
    drawn(folder, tmp_path, attributes=True)
    assert drawn(folder, tmp_path, attributes=False).keys() == files(
        "linearity", "locality", "spectra"
    )


def test_spectra_are_those_of_the_stored_directions(folder: RunFolder) -> None:
    (path,) = (Path(folder.root) / "directions").iterdir()
    stored = pq.read_table(path).drop_columns(["vector"]).to_pylist()
    found = read_spectra(folder, [read_commit(_commit(folder))])
    assert list(found) == ["left"]
    assert [rank for rank, _ in found["left"]] == [0, 1]
    for rank, values in found["left"]:
        expected = [row["singular_value"] for row in stored if row["rank"] == rank]
        assert values.tolist() == expected
        assert len(values) == PICTURES


def test_values_are_those_of_the_rows_by_region_and_strength(folder: RunFolder) -> None:
    values = PlotValues(1.0)
    values.add(rows_of(folder, attributes=True))
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    at_strength = dict(values.by_strength()["left"])
    assert list(at_strength) == list(STRENGTHS)
    for strength, changes in at_strength.items():
        expected = [r["in_change"] for r in rows if abs(r["strength"] - strength) < 1e-6]
        assert changes.tolist() == expected
    inside, outside = values.by_region()["left"]
    assert sorted(inside.tolist()) == sorted(r["in_change"] for r in rows)
    assert sorted(outside.tolist()) == sorted(r["out_change"] for r in rows)


def test_learned_editors_are_lines_of_their_own(folder: RunFolder) -> None:
    table = pq.read_table(folder.commit_url("in"))
    second = max(table["rank"].to_pylist())
    learned = [rank == second for rank in table["rank"].to_pylist()]
    for name, own, kind in (("direction", "a" * 16, pa.string()), ("rank", -1, pa.int32())):
        values = table[name].to_pylist()
        values = [own if each else v for each, v in zip(learned, values, strict=True)]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, kind))
    names = DirectionNames(own=True, by_id={"a" * 16: "smile"})
    drawn = PlotValues(1.0, frozenset(["a" * 16]))
    drawn.add(edit_rows("in", table, names))
    region = table["region"][0].as_py()
    assert list(drawn.by_region()) == [region, f"{region}/smile"]
    expected = table.filter(pa.array(learned))["in_change"].to_numpy()
    found = drawn.by_region()[f"{region}/smile"][0]
    assert sorted(found.tolist()) == sorted(expected.tolist())
