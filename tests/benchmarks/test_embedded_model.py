"""What the embedded model promises, on a few held-out faces; the benchmarks print it for more."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
import pytest

from benchmarks import locality_methods as methods
from benchmarks.embedded import HELD_OUT_SEED
from benchmarks.locality import tools
from benchmarks.locality_edits import Job, Row, edited
from benchmarks.locality_statistics import line, paired, summed_roir
from benchmarks.reconstruction import reconstruction_psnr

FACES = 4
COMPARED = 2
"""Faces on which other methods are compared with the plain one."""


def test_refined_inversion_on_twenty_steps_reconstructs_at_38_db() -> None:
    values = reconstruction_psnr(faces=4, num_steps=20, refinements=2)
    assert sum(values) / len(values) >= 38
    assert min(values) >= 37


def test_plain_inversion_on_fifty_steps_reconstructs_at_35_db() -> None:
    values = reconstruction_psnr(faces=2, num_steps=50, refinements=0)
    assert sum(values) / len(values) >= 35


@dataclass(frozen=True, slots=True)
class Effects:
    """Edits of every face by its own directions and by those of face 0."""

    own: list[Row]
    transferred: list[Row]


@pytest.fixture(scope="module")
def effects() -> Effects:
    t = tools()
    rows: list[Row] = []
    given: dict[str, methods.Found] = {}
    for i in range(FACES):
        face = t.face(i, FACES, HELD_OUT_SEED)
        names = ("random", "jacobian", "localised") if i < COMPARED else ("jacobian",)
        jobs = [Job("own", i, methods.discovered(methods.place(t.bench, face, t.node), names))]
        if given:
            jobs.append(Job("transfer", 0, {"jacobian": given["jacobian"]}))
        given = given or dict(jobs[0].found)
        rows += edited(
            t.bench, t.editor, t.regressor, face, jobs, t.node, targets=(0.15,), rounds=3
        )
    return Effects(
        [row for row in rows if row.condition == "own"],
        [row for row in rows if row.condition == "transfer"],
    )


@pytest.mark.timeout(600)
def test_masked_jacobian_edits_are_more_local_than_random_ones(effects: Effects) -> None:
    eyes, _, mouth = line(effects.own, "jacobian").roir
    assert eyes <= 0.35
    assert mouth <= 0.60
    both = [row for row in effects.own if row.face < COMPARED]
    plain, noise = line(both, "jacobian").roir, line(both, "random").roir
    assert plain[0] <= 0.6 * noise[0]
    assert plain[2] <= 0.6 * noise[2]


@pytest.mark.timeout(600)
def test_localised_edits_are_more_local_and_still_edit_their_region(effects: Effects) -> None:
    own = [row for row in effects.own if row.face < COMPARED]
    found = paired(summed_roir(own, "localised"), summed_roir(own, "jacobian"))
    assert found.better == COMPARED
    assert found.median <= 0.70
    # A region's own factors differ much between faces: two say something only together.
    moved = {
        name: sum(row.own_change for row in own if row.method == name)
        for name in ("jacobian", "localised")
    }
    assert moved["localised"] >= 0.65 * moved["jacobian"]
    assert all(max(row.jvp_count, row.vjp_count) <= 100 for row in own)


@pytest.mark.timeout(600)
def test_a_face_s_mouth_direction_does_the_same_to_other_faces(effects: Effects) -> None:
    (home,) = (
        np.array(row.changes)
        for row in effects.own
        if (row.face, row.method, row.region) == (0, "jacobian", "mouth")
    )
    moved = np.array([row.changes for row in effects.transferred if row.region == "mouth"])
    cosines = moved @ home / np.linalg.norm(moved, axis=1) / np.linalg.norm(home)
    assert cosines.mean() >= 0.35
    main = moved[:, np.abs(moved.mean(0)).argmax()]
    assert len(main) == FACES - 1
    assert len({bool(change > 0) for change in main}) == 1
    assert abs(median(main.tolist())) > 0.1
