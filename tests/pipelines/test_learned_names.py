"""Learned editors are called by their labels, and stand apart from an image's own directions."""

from __future__ import annotations

import pyarrow as pa

from pipelines.evaluation.direction_names import direction_names
from pipelines.learned_names import names_of
from pipelines.report.groups import grouped, with_groups

LEARNED = [{"id": "a" * 16, "label": "smile"}, {"id": "b" * 16, "label": "eyes-open"}]


def rows() -> pa.Table:
    """One image with a direction of its own, a learned editor, and both together."""
    table = {
        "region": ["mouth", "mouth", "mouth"],
        "rank": [0, -1, 0],
        "direction": ["c" * 16, "a" * 16, "c" * 16],
        "strength": [0.1, 1.0, 0.1],
        "noise": pa.array([None] * 3, pa.int32()),
        "added_directions": [[], [], ["a" * 16]],
        "added_regions": [[], [], ["mouth"]],
        "added_ranks": [[], [], [-1]],
        "added_strengths": [[], [], [1.0]],
    }
    return pa.table(table)


def test_labels_are_names_with_digits_of_the_id_where_two_are_the_same() -> None:
    assert names_of(LEARNED) == {"a" * 16: "smile", "b" * 16: "eyes-open"}
    twice = [*LEARNED, {"id": "d" * 16, "label": "smile"}]
    assert names_of(twice)["d" * 16] == "smile dddddd"


def test_a_report_groups_learned_editors_by_name_beside_directions_by_rank() -> None:
    keys, _ = grouped(with_groups(rows(), own=True, learned=names_of(LEARNED)))
    titles = {key.title for key in keys}
    assert titles == {"mouth 0", "smile", "mouth 0 with smile +1"}
    assert keys[0].title == "smile"
    assert [(key.learned, key.direction) for key in keys] == [
        ("smile", "a" * 16), ("", ""), ("", ""),
    ]  # fmt: skip


def test_an_editor_without_a_name_is_still_a_group_of_its_own() -> None:
    keys, _ = grouped(with_groups(rows(), own=True))
    assert [key.title for key in keys] == ["aaaaaaaa", "mouth 0", "mouth 0 with aaaaaaaa +1"]


def test_sdedit_is_no_learned_editor() -> None:
    table = rows().slice(0, 1).set_column(1, "rank", pa.array([None], pa.int32()))
    table = table.set_column(4, "noise", pa.array([0], pa.int32()))
    (key,), _ = grouped(with_groups(table, own=False, learned=names_of(LEARNED)))
    assert (key.rank, key.learned, key.title) == (-1, "", "SDEdit, noise 0")


def test_an_evaluation_names_them_in_runs_that_find_their_own_directions() -> None:
    config = {"discover": {"method": "jacobian"}}
    names, notice = direction_names(config, names_of(LEARNED))
    assert notice is None
    told = {"added_directions": ["a" * 16], "added_ranks": [-1]}
    assert names({"direction": "c" * 16, "rank": 2} | told) == "2+smile"
