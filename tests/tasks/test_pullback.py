"""The pullback basis of a network whose d h / d x_t is a known matrix, against numpy's SVD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lib.direction import WHOLE, Direction
from lib.discovery.region_problem import Search
from lib.discovery.signs import LARGEST_ENTRY
from lib.records import Failure, Segmented
from lib.regions import make_region
from lib.sampling.grid import Grid
from tasks.pullback import TRANSPORTED, PullbackDiscoverer

NODE = 3


def discover(
    denoiser: Any,
    grid: Grid,
    items: Sequence[Segmented],
    *,
    space: str = "x",
    count: int = 3,
    carried: Sequence[Direction] = (),
) -> tuple[list[tuple[Direction, ...]], list[Failure]]:
    stage = PullbackDiscoverer(
        denoiser,
        grid,
        node=NODE,
        search=Search(count, 1e-3, 60),
        chunk=3,
        space=space,
        carried=carried,
        parameters={"some": "option"},
        model="weights",
        h_layer="after",
        h_norms={t: t / 100 for t in grid.timesteps},
        vector_dtype="float32",
    )
    failures: list[Failure] = []
    return [one.directions for one in stage(items, failures.append)], failures


@pytest.fixture
def item(segmented: Any, grid: Grid, halves: Any) -> Callable[[int], Segmented]:
    def make(index: int) -> Segmented:
        x_LYX = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(index))
        made: Segmented = segmented(index, x_LYX, grid.timestep(NODE), halves)
        return made

    return make


def rows(directions: Sequence[Direction]) -> np.ndarray:
    return np.stack([d.vector_SCYX.flatten().double().numpy() for d in directions])


@pytest.mark.parametrize("space", ["x", "h"])
def test_the_basis_is_that_of_the_svd_with_the_largest_entry_positive(
    linear: Any, grid: Grid, item: Any, space: str
) -> None:
    (found, again), failures = discover(linear, grid, [item(0), item(1)], space=space)
    assert not failures
    U_EE, S_K, V_KD = np.linalg.svd(linear.W_DN, full_matrices=False)
    exact_KD = (V_KD if space == "x" else U_EE.T)[:3]
    V_KD = rows(found)
    np.testing.assert_allclose(np.abs((V_KD * exact_KD).sum(1)), 1, atol=1e-4)
    assert (V_KD[range(3), np.abs(V_KD).argmax(1)] > 0).all()
    np.testing.assert_allclose(V_KD, rows(again), atol=1e-3)  # W is the same everywhere
    np.testing.assert_allclose([d.singular_value for d in found], S_K[:3], rtol=1e-4)
    np.testing.assert_allclose([d.gap for d in found], S_K[1:4] / S_K[:3], rtol=1e-2)
    whole = make_region(WHOLE, torch.ones(4, 4)).mask_sha256
    for rank, d in enumerate(found):
        assert (d.rank, d.space, d.region, d.mask_sha256) == (rank, space, WHOLE, whole)
        assert (d.sign_rule, d.timesteps) == (LARGEST_ENTRY, (grid.timestep(NODE),))
        assert d.vector_SCYX.shape == ((1, 3, 4, 4) if space == "x" else (1, 2, 2, 2))
        expected = np.sqrt(48) if space == "x" else grid.timestep(NODE) / 100
        assert d.h_norm == pytest.approx(expected)
        assert (d.parameters, d.parents, d.converged) == ({"some": "option"}, (), True)


@pytest.mark.parametrize("count", [3, 8])
def test_a_carried_direction_is_v_u_transposed_u_and_says_how_much_of_it_that_is(
    linear: Any, grid: Grid, item: Any, direction: Any, count: int
) -> None:
    parent = replace(direction(torch.randn(1, 2, 2, 2)), id="parent", label="smile")
    (found,), failures = discover(linear, grid, [item(0)], count=count, carried=[parent])
    assert not failures
    u_E = parent.vector_SCYX.flatten().double().numpy()
    U_EE, _, V_KD = np.linalg.svd(linear.W_DN, full_matrices=False)
    part_K = U_EE.T[:count] @ u_E
    v_D = part_K @ V_KD[:count]
    (d,) = found
    assert rows(found)[0] @ v_D / np.linalg.norm(v_D) == pytest.approx(1, abs=1e-4)
    assert d.singular_value == pytest.approx(np.linalg.norm(linear.W_DN @ rows(found)[0]), rel=1e-3)
    assert d.parameters["carried"] == pytest.approx(np.linalg.norm(part_K), abs=1e-3)
    assert (d.space, d.sign_rule, d.parents, d.label) == ("x", TRANSPORTED, ("parent",), "smile")
    assert (d.gap, d.residual) == (None, None)


def test_of_a_direction_of_several_steps_the_nearest_is_carried(
    linear: Any, grid: Grid, item: Any, direction: Any
) -> None:
    steps_SCYX = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    t = grid.timestep(NODE)
    several = direction(steps_SCYX, timesteps=(t + 300, t + 10, t - 100))
    one = direction(steps_SCYX[1:2], timesteps=(t,))
    (found,), _ = discover(linear, grid, [item(0)], count=8, carried=[several, one])
    np.testing.assert_allclose(rows(found)[0], rows(found)[1], atol=1e-6)


def test_what_cannot_be_carried_or_does_not_respond_is_an_error_row(
    make_linear: Any, grid: Grid, item: Any, direction: Any
) -> None:
    linear = make_linear()
    left_D = np.linalg.svd(linear.W_DN)[0].T[-1]  # orthogonal to the first three
    beside = direction(torch.from_numpy(left_D).float().view(1, 2, 2, 2))
    found, failures = discover(linear, grid, [item(0)], carried=[beside])
    assert not found
    assert [f.kind for f in failures] == ["no_direction"]
    assert "of direction d lies in the 3 directions" in failures[0].message
    linear.W_DN[:] = 0
    found, failures = discover(linear, grid, [item(0)])
    assert not found
    assert [(f.stage, f.kind) for f in failures] == [("discover", "no_direction")]
    assert "h does not depend on x_t" in failures[0].message


def test_nan_and_wrong_products_are_error_rows(linear: Any, grid: Grid, item: Any) -> None:
    linear.W_DN[0, 0] = np.nan
    found, failures = discover(linear, grid, [item(0), item(1)])
    assert not found
    assert [(f.index, f.kind) for f in failures] == [(0, "not_finite"), (1, "not_finite")]


def test_more_directions_than_the_rank_of_the_map_are_as_many_as_the_rank(
    make_linear: Any, grid: Grid, item: Any
) -> None:
    linear = make_linear()
    linear.W_DN[2:] = 0
    (found,), failures = discover(linear, grid, [item(0)], count=6)
    assert not failures
    assert len(found) == 2
