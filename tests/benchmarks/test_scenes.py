"""The networks, regions and truth of `benchmarks.jacobian`, on the toy before its training."""

from __future__ import annotations

import pytest
import torch

from benchmarks.costs import held, measured, network, overhead
from benchmarks.methods import engine
from benchmarks.oracle import jacobian_rows
from benchmarks.scenes import REGIONS, Scene, face
from benchmarks.toy import Recipe, build_unet
from benchmarks.whole_network import WholeNetwork
from lib.models.unet_denoiser import UNetDenoiser


@pytest.fixture(scope="module")
def scene() -> Scene:
    torch.manual_seed(0)
    unet = build_unet()
    denoiser = UNetDenoiser(unet, [0.3] * 1000, "epsilon", "after")
    x0_BLYX, _ = face(32)
    mask_RN = torch.zeros(1, 3 * 32 * 32)
    mask_RN[0, 1500:1504] = 1
    return Scene("untrained", unet, denoiser, x0_BLYX, 300, 0.3, mask_RN, "0")


@pytest.mark.parametrize("size", [32, 64])
def test_regions_of_a_face_are_disjoint_and_have_rank_for_ten_directions(size: int) -> None:
    _, masks_RN = face(size)
    assert len(masks_RN) == len(REGIONS)
    assert set(masks_RN.unique().tolist()) == {0.0, 1.0}
    assert int(masks_RN.sum(0).max()) == 1
    assert int(masks_RN.sum(1).min()) > 10


def test_exact_rows_are_the_finite_differences_of_the_predicted_image(scene: Scene) -> None:
    (J_MD,) = jacobian_rows(scene)
    point = scene.denoiser.encode(scene.x_BLYX, scene.t)
    v_BCYX = torch.randn(point.h_BCYX.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-2 * point.h_BCYX.norm() / v_BCYX.norm()
    with torch.no_grad():
        ends = [
            scene.denoiser.decode(point, point.h_BCYX + sign * step * v_BCYX).flatten()
            for sign in (1, -1)
        ]
    change_M = (ends[0] - ends[1])[1500:1504] / (2 * step) * scene.scale
    expected_M = (J_MD @ v_BCYX.flatten().double()).float()
    assert float((change_M - expected_M).norm() / expected_M.norm()) < 5e-3


@pytest.mark.parametrize("build", ["whole", "ours"])
def test_products_are_those_of_the_exact_rows(scene: Scene, build: str) -> None:
    (J_MD,) = jacobian_rows(scene)
    jacobian = WholeNetwork(scene) if build == "whole" else engine(scene, 8)
    V_KD = torch.randn(3, jacobian.domain, generator=torch.Generator().manual_seed(2))
    for rows_KD in (V_KD[:1], V_KD):
        torch.testing.assert_close(
            jacobian.jvp(rows_KD)[:, 1500:1504], (rows_KD.double() @ J_MD.T).float(),
            rtol=1e-4, atol=1e-4 * float(J_MD.norm()),
        )  # fmt: skip
    unit_KN = torch.eye(3 * 32 * 32)[1500:1504]
    for picked in (slice(0, 1), slice(0, 4)):
        torch.testing.assert_close(
            jacobian.vjp(unit_KN[picked]), J_MD[picked].float(),
            rtol=1e-3, atol=1e-5 * float(J_MD.abs().max()),
        )  # fmt: skip


def test_the_stated_cost_model_is_what_torch_counts(scene: Scene) -> None:
    parts = network(scene)
    forward, backward = measured(WholeNetwork(scene), 3 * 32 * 32, 5, parts)
    assert forward == pytest.approx(5 + 2 + parts.encoder, rel=0.03)
    assert backward == pytest.approx(5, rel=0.03)
    jacobian = engine(scene, 8)
    forward, backward = measured(jacobian, 3 * 32 * 32, 5, parts)
    assert forward == pytest.approx(5 + overhead(jacobian, parts), rel=0.03)
    assert backward == pytest.approx(5, rel=0.03)


def test_held_memory_counts_saved_and_kept_tensors_but_no_weights(scene: Scene) -> None:
    kept, size = held(scene, lambda: (torch.zeros(1000), scene.unet.conv_in.weight))
    assert (len(kept), size) == (2, 4000)
    leaf = torch.ones(500, requires_grad=True)
    _, size = held(scene, lambda: (leaf * 2).exp())  # exp saves its result
    assert size == 2000


def test_another_recipe_has_another_key() -> None:
    assert len({Recipe().key, Recipe(seed=1).key, Recipe(steps=20).key}) == 3
