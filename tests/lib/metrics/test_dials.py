"""The disentanglement matrix and what makes a direction a dial, on rows with known answers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lib.metrics.disentanglement import effects, matrix, mean_share
from lib.metrics.edit_rows import EditRows, edit_rows
from lib.metrics.linearity import (
    BALANCE,
    LINEARITY,
    OF_ATTRIBUTE,
    SYMMETRY,
    dials,
    journeys,
    transfer,
)
from lib.metrics.sums import add_into

STRENGTHS = (-0.2, -0.1, 0.1, 0.2)
COLUMNS = {
    "index": pa.int32(), "region": pa.string(), "direction": pa.string(), "rank": pa.int32(),
    "added_directions": pa.list_(pa.string()), "added_ranks": pa.list_(pa.int32()),
    "strength": pa.float32(), "in_change": pa.float32(), "mask_area": pa.float32(),
    "change_smile": pa.float32(), "change_hat": pa.float32(), "filtered": pa.string(),
}  # fmt: skip


def row(index: int, strength: float, **values: Any) -> dict[str, Any]:
    defaults = {
        "region": "mouth", "direction": f"d{index}", "rank": 0, "added_directions": [],
        "added_ranks": [], "in_change": abs(strength), "mask_area": 0.1, "change_smile": 0.0,
        "change_hat": 0.0, "filtered": None,
    }  # fmt: skip
    return defaults | {"index": index, "strength": strength} | values


def rows(*given: dict[str, Any], shard: str = "s") -> EditRows:
    table = pa.Table.from_pylist(list(given), schema=pa.schema(list(COLUMNS.items())))
    return edit_rows(shard, table, lambda r: "+".join(map(str, [r["rank"], *r["added_ranks"]])))


def test_rows_are_named_by_region_and_direction_and_numbers_that_measure_are_kept() -> None:
    found = rows(
        row(3, 0.1),
        row(3, 0.2, added_directions=["e"], added_ranks=[4], region="mouth+eyes"),
        row(7, 0.1, direction=None, rank=None, region="image", in_change=None, filtered="psnr > 1"),
    )
    assert found.name.tolist() == ["mouth/0", "mouth+eyes/0+4", "image/None"]
    assert found.single.tolist() == [True, False, True]
    assert found.index_I.tolist() == [3, 7]
    assert found.image_N.tolist() == [0, 0, 1]
    assert set(found.metrics) == {"in_change", "change_smile", "change_hat"}
    assert found.attributes == ("smile", "hat")
    assert math.isnan(found.metrics["in_change"][2])
    assert found.filtered.tolist() == [None, None, "psnr > 1"]


def test_an_effect_counts_the_sign_of_the_strength() -> None:
    # + adds 0.4 of smile, - takes 0.2 away: the direction adds 0.3 on the average of its edits.
    given = [row(i, 0.1, change_smile=0.4, change_hat=0.1) for i in range(4)]
    given += [row(i, -0.1, change_smile=-0.2, change_hat=0.1) for i in range(4)]
    (found,) = matrix(effects(rows(*given)))
    assert (found.edit, found.target) == ("mouth/0", "smile")
    assert found.effects["smile"].value == pytest.approx(0.3)
    assert found.effects["hat"].value == pytest.approx(0.0)
    assert found.effects["smile"].count == 8
    assert found.share.value == pytest.approx(1.0)


def test_a_share_has_a_hand_computed_value_and_a_label_names_its_target() -> None:
    given = [row(i, 0.1, change_smile=0.1, change_hat=-0.3) for i in range(4)]
    (found,) = matrix(effects(rows(*given)))
    assert found.target == "hat"
    assert found.share.value == pytest.approx(0.75)
    table = effects(rows(*given))
    named = {("mouth/smile", attribute): sums for (_, attribute), sums in table.items()}
    (labelled,) = matrix(named)
    assert (labelled.target, labelled.share.value) == ("smile", pytest.approx(0.25))
    assert mean_share([found, labelled]) == pytest.approx(0.5)
    assert math.isnan(mean_share([]))


def test_combined_edits_are_not_in_the_matrix() -> None:
    assert effects(rows(row(0, 0.1, added_directions=["e"], added_ranks=[1]))) == {}


def test_a_dial_is_linear_symmetric_and_balanced() -> None:
    given = [row(0, s, change_smile=2 * s, change_hat=-s) for s in STRENGTHS]
    found = {what: sums.mean for (_, what), sums in dials(rows(*given)).items()}
    assert found == pytest.approx(
        {
            LINEARITY: 1.0,
            SYMMETRY: 1.0,
            BALANCE: 1.0,
            OF_ATTRIBUTE + "smile": 1.0,
            OF_ATTRIBUTE + "hat": -1.0,
        }
    )


def test_a_switch_that_moves_one_way_is_none_of_it() -> None:
    # It changes at the full strength alone, and the same way with - as with +.
    given = [
        row(0, s, in_change=0.3 if abs(s) > 0.15 else 0.0, change_smile=0.5) for s in STRENGTHS
    ]
    found = {what: sums.mean for (_, what), sums in dials(rows(*given)).items()}
    x, y = [0, 0.2, 0.1, 0.1, 0.2], [0, 0.3, 0, 0, 0.3]
    assert found[LINEARITY] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert found[SYMMETRY] == pytest.approx(-1.0)
    assert found[OF_ATTRIBUTE + "smile"] == pytest.approx(0.0, abs=1e-6)


def test_balance_is_the_weaker_side_over_the_stronger() -> None:
    found = dials(rows(row(0, -0.1, in_change=0.1), row(0, 0.1, in_change=0.4)))
    assert found["mouth/0", BALANCE].mean == pytest.approx(0.25)
    assert ("mouth/0", LINEARITY) not in found, "one size of strength says nothing of a line"


def test_dials_and_effects_merged_over_shards_are_those_of_all_rows() -> None:
    generator = np.random.default_rng(0)

    def of_image(index: int) -> list[dict[str, Any]]:
        numbers = generator.random((len(STRENGTHS), 2)).tolist()
        return [
            row(index, strength, in_change=change, change_smile=smile - 0.5)
            for strength, (change, smile) in zip(STRENGTHS, numbers, strict=True)
        ]

    images = [of_image(index) for index in range(12)]
    whole = rows(*itertools.chain(*images))
    for measure in (dials, effects):
        sums = {}
        for part in (images[::3], images[1::3], images[2::3]):
            add_into(sums, measure(rows(*itertools.chain(*part))))
        for key, expected in measure(whole).items():
            assert sums[key].count == expected.count
            assert sums[key].mean == pytest.approx(expected.mean, rel=1e-9)
            assert sums[key].figure().low == pytest.approx(expected.figure().low, rel=1e-9)


def test_transfer_is_the_change_elsewhere_over_the_change_at_home() -> None:
    given = [row(i, 0.1, direction="lib", in_change=0.4 if i == 2 else 0.1) for i in range(6)]
    here = rows(*given)
    (found,) = transfer(journeys(here, {"lib": ("s", 2)})).values()
    assert found.value == pytest.approx(0.25)
    assert found.count == 5
    assert transfer(journeys(here, {"lib": ("other", 2)})) == {}
    assert journeys(here, {}) == {}
