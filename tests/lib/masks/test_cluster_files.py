"""The region model as a file, and the names beside it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.discovery.statistics_files import StatisticsDamageError
from lib.masks.cluster_files import (
    RegionModel,
    RegionStudy,
    decode_model,
    decode_part,
    encode_model,
    encode_part,
)
from lib.masks.cluster_names import names_url, read_regions, write_names
from lib.problems import ConfigProblem

STUDY = RegionStudy("ab" * 32, (120, 60), (1,), (4, 4, 3), (1.0, 1.0, 0.5), 6, 32)


def made(seed: int = 0) -> RegionModel:
    random = np.random.default_rng(seed)
    return RegionModel(
        STUDY,
        64,
        0.25,
        random.standard_normal((6, 11)).astype(np.float32),
        random.random(3).astype(np.float32),
        np.full(6, 1 / 6, np.float32),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/regions.safetensors").write_bytes(encode_model(made()))
    return tmp_path


def test_a_model_comes_back_as_it_was() -> None:
    found = decode_model(encode_model(made()), "x")
    assert (found.study, found.images, found.spread) == (STUDY, 64, 0.25)
    np.testing.assert_array_equal(found.centres_KD, made().centres_KD)
    assert encode_model(found) == encode_model(made())


def test_other_files_and_half_ones_are_refused() -> None:
    data = encode_model(made())
    part = encode_part(STUDY, {"sum": np.zeros(11)})
    assert decode_part(part, "x")[0] == STUDY
    wrong = encode_model(replace(made(), centres_KD=np.zeros((5, 11), np.float32)))
    for damaged in (data[:-5], b"words", part, wrong):
        with pytest.raises(StatisticsDamageError, match="x: expected a whole file"):
            decode_model(damaged, "x")


def test_a_name_holds_several_regions_and_is_read_with_the_model(run: Path) -> None:
    write_names(read_regions(str(run)), {3: "hair", 1: "hair", 0: "skin"})
    write_names(read_regions(str(run)), {0: "", 5: "eyes"})
    for path in (str(run), str(run / "merged/regions.safetensors")):
        found = read_regions(path)
        assert found.by_name == {"eyes": (5,), "hair": (1, 3)}
        assert found.resolved(["hair", 2, "5"]) == (1, 2, 3, 5)


@pytest.mark.parametrize("label", [6, "6", "-1", "hat"])
def test_what_is_not_there_is_refused(run: Path, label: int | str) -> None:
    with pytest.raises(ConfigProblem, match=r"expected a (cluster below 6|name of a region)"):
        read_regions(str(run)).resolved([label])
    with pytest.raises(ConfigProblem):
        write_names(read_regions(str(run)), {6: "hat"})


def test_names_of_another_model_are_refused(run: Path) -> None:
    write_names(read_regions(str(run)), {3: "hair"})
    (run / "merged/regions.safetensors").write_bytes(encode_model(made(1)))
    with pytest.raises(ConfigProblem, match="names the regions of another model"):
        read_regions(str(run))
    Path(names_url(str(run / "merged/regions.safetensors"))).write_text(json.dumps([1]))
    with pytest.raises(ConfigProblem, match="as `deltah regions name` writes them"):
        read_regions(str(run))


def test_a_folder_without_regions_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="pipeline: region_model"):
        read_regions(str(tmp_path))
