"""Estimated products against those counted on a held-out face with the embedded model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.demo.faces import masks, render, sample_factors
from lib.denoiser import Denoiser
from lib.discovery.jacobian import h_jacobian
from lib.discovery.localised import localised_directions
from lib.discovery.masked_jacobian import masked_jacobian
from lib.discovery.null_space import null_space_directions
from lib.discovery.region_problem import RegionProblem, Search
from lib.discovery.shared_variation import jive_directions
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import EMBEDDED, open_checkpoint
from lib.sampling.ddim import inversion
from lib.sampling.grid import make_grid
from pipelines.discovery_config import (
    JacobianDiscovery,
    JiveDiscovery,
    LocalisedDiscovery,
    NullSpaceDiscovery,
    PullbackDiscovery,
    TextDiscovery,
)
from pipelines.jacobian_products import estimated_products

ZONES, SEARCH = ("eyes", "brows", "mouth"), Search(3, 0.1, 60)


@pytest.fixture(scope="module")
def face() -> tuple[Denoiser, Tensor, int, float, Tensor]:
    """The model, x_t, t, alpha_bar(t) and three regions."""
    checkpoint = open_checkpoint(EMBEDDED)
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), "after")
    grid = make_grid(checkpoint.scheduler_config, 50, "linspace")
    node = grid.nearest_node(368)
    factors_BF = sample_factors(1, 9191)
    areas = masks(factors_BF, denoiser.image_size)
    masks_RN = torch.stack([areas.zones[z][0].expand(3, -1, -1).flatten() for z in ZONES])
    image_BCHW = render(factors_BF, denoiser.image_size).image_BCHW
    with torch.no_grad():
        *_, (_, x_BLYX) = inversion(denoiser.predict, grid, image_BCHW, last=node, refinements=0)
    return denoiser, x_BLYX, grid.timestep(node), grid.alphas[node], masks_RN.float()


@pytest.mark.parametrize(
    ("method", "discover"),
    [
        (masked_jacobian, JacobianDiscovery()),
        (
            partial(localised_directions, trade_off=0.1),
            LocalisedDiscovery(method="localised"),
        ),
        (
            partial(null_space_directions, null_rank=5),
            NullSpaceDiscovery(method="null_space", null_rank=5),
        ),
        (
            partial(jive_directions, factor_rank=8, joint_rank="angle", individual_rank=4),
            JiveDiscovery(method="jive", factor_rank=8, individual_rank=4),
        ),
    ],
    ids=["jacobian", "localised", "null_space", "jive"],
)
def test_estimates_are_within_a_third_of_what_is_counted(
    face: Any, method: Any, discover: Any
) -> None:
    denoiser, x_BLYX, t, alpha, masks_RN = face
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, t)
    jacobian = h_jacobian(denoiser, point, alpha, chunk=8)
    problem = RegionProblem(
        jacobian=jacobian, names=ZONES, masks_RN=masks_RN, predicted_CHW=x_BLYX[0], seed=0
    )
    spectra = method(problem, search=SEARCH)
    assert all(s.converged for s in spectra)
    counted = jacobian.jvp_count + jacobian.vjp_count
    assert estimated_products(discover, 3) == pytest.approx(counted, rel=0.33)


def test_estimates_follow_the_limits_of_the_config() -> None:
    assert estimated_products(JacobianDiscovery(max_rounds=4), 2) == 2 * 2 * 4
    assert estimated_products(JacobianDiscovery(timesteps=(300, 500)), 1) == 2 * 18
    text = {"method": "text", "model": "m", "source": "a", "target": "b"}
    assert estimated_products(TextDiscovery.model_validate(text), 3) == 3
    plain = PullbackDiscovery(method="pullback", directions=3)
    carried = PullbackDiscovery(method="pullback", directions=3, transport="lib", basis=10)
    assert estimated_products(plain, 5) == 2 * 15
    assert estimated_products(carried, 5) == 2 * 28
