"""Directions of a network whose Jacobian is a known matrix, held against float64 SVD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.discovery.masked_jacobian import masked_jacobian
from lib.discovery.region_problem import Search
from lib.records import Discovered, Failure, Segmented
from lib.sampling.grid import Grid
from tasks.discover import JacobianDiscoverer, Recipe, Stamp
from tasks.library import LibraryDiscoverer

NODE = 3


def discover(
    denoiser: Any,
    grid: Grid,
    items: Sequence[Segmented],
    *,
    directions: int = 3,
    tolerance: float = 1e-4,
    dtype: str = "float32",
    chunk: int = 4,
) -> tuple[list[Discovered], list[Failure]]:
    method = partial(masked_jacobian, search=Search(directions, tolerance, 20))
    stage = JacobianDiscoverer(
        denoiser,
        grid,
        nodes=[NODE],
        recipe=Recipe("jacobian", method, {"directions": directions}, chunk=chunk),
        stamp=Stamp("weights", "after", {t: t / 100 for t in grid.timesteps}, dtype),
    )
    failures: list[Failure] = []
    return list(stage(items, failures.append)), failures


@pytest.fixture
def item(
    segmented: Callable[..., Segmented], grid: Grid, halves: dict[str, Tensor]
) -> Callable[..., Segmented]:
    def make(index: int, masks: dict[str, Tensor] | None = None) -> Segmented:
        x_LYX = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(index))
        return segmented(index, x_LYX, grid.timestep(NODE), masks or halves)

    return make


def exact_jacobian(denoiser: Any, grid: Grid, mask_HW: Tensor) -> np.ndarray:
    """d P_t / d h = -sqrt(1 - a) / sqrt(a) d eps / d h, and d eps / d h = g(t) M here."""
    alpha, t = grid.alphas[NODE], grid.timestep(NODE)
    J_ND = -np.sqrt((1 - alpha) / alpha) * denoiser.gain(t) * denoiser.M_ND
    mask_N = mask_HW.expand(3, -1, -1).flatten().double().numpy()
    return np.asarray(mask_N[:, None] * J_ND)


def test_directions_are_the_right_singular_vectors_of_the_exact_jacobian(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    soft_HW = torch.linspace(0, 1, 16).view(4, 4)
    masks = halves | {"soft": soft_HW}
    (found,), failures = discover(linear, grid, [item(0, masks)])
    assert not failures
    assert found.own
    names = [(d.region, d.rank) for d in found.directions]
    assert names == [(name, rank) for name in ("left", "right", "soft") for rank in range(3)]
    for region in found.segmented.regions:
        J_ND = exact_jacobian(linear, grid, region.mask_HW)
        _, S_D, V_DD = np.linalg.svd(J_ND)
        for d in (d for d in found.directions if d.region == region.name):
            v_D = d.vector_SCYX.flatten().double().numpy()
            assert np.linalg.norm(v_D) == pytest.approx(1, abs=1e-6)
            assert abs(v_D @ V_DD[d.rank]) == pytest.approx(1, abs=1e-5)
            assert d.singular_value == pytest.approx(S_D[d.rank], rel=1e-4)
            assert d.gap == pytest.approx(S_D[d.rank + 1] / S_D[d.rank], rel=1e-3)
            assert d.converged
            assert d.mask_sha256 == region.mask_sha256
            assert (d.timesteps, d.h_norm) == ((grid.timestep(NODE),), grid.timestep(NODE) / 100)


def test_plus_brightens_the_region_whatever_the_order_of_samples_and_regions(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    forward, _ = discover(linear, grid, [item(i) for i in range(3)], tolerance=1e-5)
    backward, _ = discover(linear, grid, [item(i) for i in (2, 1, 0)], tolerance=1e-5)
    turned = dict(reversed(halves.items()))
    regions, _ = discover(linear, grid, [item(i, turned) for i in range(3)], tolerance=1e-5)
    for one, same, other in zip(forward, reversed(backward), regions, strict=True):
        assert [d.id for d in one.directions] == [d.id for d in same.directions]
        by_name = {(d.region, d.rank): d for d in other.directions}
        for d in one.directions:
            v_D = d.vector_SCYX.flatten().double().numpy()
            brightness = exact_jacobian(linear, grid, halves[d.region]).sum(0) @ v_D
            assert brightness > 0
            twin_D = by_name[d.region, d.rank].vector_SCYX.flatten().double().numpy()
            assert v_D @ twin_D == pytest.approx(1, abs=1e-5)


def test_a_network_of_low_rank_has_no_more_directions_than_its_rank(
    make_linear: Any, grid: Grid, item: Any
) -> None:
    (found,), failures = discover(make_linear(rank=2), grid, [item(0)], directions=4)
    assert not failures
    assert [(d.region, d.rank) for d in found.directions] == [
        ("left", 0), ("left", 1), ("right", 0), ("right", 1),
    ]  # fmt: skip


def test_a_region_that_h_does_not_reach_is_rejected_by_its_name(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    linear.M_ND[halves["right"].expand(3, -1, -1).flatten().bool().numpy()] = 0
    found, failures = discover(linear, grid, [item(0)])
    assert not found
    assert [(f.index, f.stage, f.kind) for f in failures] == [(0, "discover", "no_direction")]
    assert "region right" in failures[0].message


@pytest.mark.parametrize("where", ["encode", "decode"])
def test_one_image_that_goes_to_nan_is_rejected_and_the_others_are_untouched(
    linear: Any, grid: Grid, item: Any, mark: float, where: str
) -> None:
    items = [item(i) for i in range(3)]
    clean, _ = discover(linear, grid, items)
    items[1].inverted.states_LYX[grid.timestep(NODE)][0, 0, 0] = mark
    linear.broken_in = where
    found, failures = discover(linear, grid, items)
    if where == "encode":  # eps is not what discovery reads of the encoder half
        assert not failures
        return
    assert [(f.index, f.stage, f.kind) for f in failures] == [(1, "discover", "not_finite")]
    assert [[d.id for d in one.directions] for one in found] == [
        [d.id for d in clean[i].directions] for i in (0, 2)
    ]


def test_the_number_of_products_in_one_call_changes_nothing_that_counts(
    linear: Any, grid: Grid, item: Any
) -> None:
    one, _ = discover(linear, grid, [item(0)], chunk=1)
    all_, _ = discover(linear, grid, [item(0)], chunk=64)
    for a, b in zip(one[0].directions, all_[0].directions, strict=True):
        torch.testing.assert_close(a.vector_SCYX, b.vector_SCYX, rtol=0, atol=1e-5)
        assert (a.jvp_count, a.vjp_count) == (b.jvp_count, b.vjp_count)


def test_a_direction_kept_in_half_precision_is_what_is_used_and_named(
    linear: Any, grid: Grid, item: Any
) -> None:
    (whole,), _ = discover(linear, grid, [item(0)])
    (half,), _ = discover(linear, grid, [item(0)], dtype="float16")
    for a, b in zip(whole.directions, half.directions, strict=True):
        assert torch.equal(b.vector_SCYX, a.vector_SCYX.half().float())
        assert b.vector_SCYX.dtype == torch.float32
        assert a.id != b.id


def test_a_library_gives_every_image_the_same_directions(
    linear: Any, grid: Grid, item: Any, direction: Any
) -> None:
    library = (direction(torch.ones(1, 2, 2, 2)), direction(torch.eye(2).expand(1, 2, 2, 2)))
    found = list(LibraryDiscoverer(library)([item(0), item(1)], lambda _: None))
    assert [one.directions for one in found] == [library, library]
    assert not any(one.own for one in found)
    assert [one.segmented.inverted.sample.index for one in found] == [0, 1]
