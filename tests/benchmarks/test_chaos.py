"""A fixed set of the faults of `benchmarks.chaos`, on real Ray with two machines."""

from __future__ import annotations

import pytest

from benchmarks.chaos import POISON, rounds

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_nothing_is_lost_twice_or_wrong_under_kills_poison_orphans_and_a_failing_store() -> None:
    ((_, found),) = rounds(
        faults=1,
        good=16,
        images=6,
        image_s=0.05,
        seed=1,
        limit_s=300.0,
        kinds=("worker killed", "driver killed", "orphan writing", "store down"),
        places=("s3",),
    )
    assert not found.hung
    assert found.problems == []
    assert (found.samples, found.lost, found.twice, found.wrong) == (16 * 6, 0, 0, 0)
    assert found.redone <= found.allowed
    assert found.faults.total() == 4 + len(POISON)
