"""Text-guided directions against the dense transposed Jacobian."""

from pathlib import Path

import pytest
import torch

from lib.discovery.jacobian import h_jacobian
from lib.discovery.text_guided import text_guided
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.sampling.ddim import predicted_x0

D, N = 20, 48


class DenseMap:
    """A matrix behind the protocol, counting its products."""

    def __init__(self, J_ND: torch.Tensor) -> None:
        self.J_ND = J_ND
        self.domain = J_ND.shape[1]
        self.jvp_count = 0
        self.vjp_count = 0

    def jvp(self, V_KD: torch.Tensor) -> torch.Tensor:
        self.jvp_count += len(V_KD)
        return V_KD @ self.J_ND.T

    def vjp(self, U_KN: torch.Tensor) -> torch.Tensor:
        self.vjp_count += len(U_KN)
        return U_KN @ self.J_ND


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def masks() -> torch.Tensor:
    mask_RN = torch.zeros(3, N, dtype=torch.float64)
    mask_RN[0, :20] = 1
    mask_RN[1, 15:30] = 0.5
    mask_RN[2] = 1
    return mask_RN


def test_each_direction_is_the_dense_transposed_product_for_one_vjp_a_region() -> None:
    jacobian, d_N = DenseMap(random(N, D)), random(N, seed=1)
    found = text_guided(jacobian, d_N, masks())
    assert (jacobian.vjp_count, jacobian.jvp_count) == (3, 0)
    for v_D, gain, mask_N in zip(found.V_RD, found.gain_R, masks(), strict=True):
        expected_D = jacobian.J_ND.T @ (mask_N * d_N)
        torch.testing.assert_close(v_D, expected_D / expected_D.norm())
        masked_JND = (mask_N > 0)[:, None] * jacobian.J_ND
        assert 0 < gain <= float(torch.linalg.matrix_norm(masked_JND, 2))
    assert found.kept_R == pytest.approx((1, 1, 1))


def test_it_is_the_steepest_unit_shift_towards_the_wish() -> None:
    jacobian, d_N = DenseMap(random(N, D)), random(N, seed=1)
    wish_N = masks()[0] * d_N
    best = float(wish_N @ jacobian.jvp(text_guided(jacobian, d_N, masks()[:1]).V_RD)[0])
    others_KD = torch.nn.functional.normalize(random(500, D, seed=2), dim=1)
    assert best > float((jacobian.jvp(others_KD) @ wish_N).abs().max())


def test_the_null_space_is_not_touched() -> None:
    jacobian, d_N = DenseMap(random(N, D)), random(N, seed=1)
    outside = [(mask_N == 0)[:, None] * jacobian.J_ND for mask_N in masks()[:2]]
    null_RKD = [torch.linalg.svd(J_ND).Vh[:5] for J_ND in outside]
    plain = text_guided(jacobian, d_N, masks()[:2])
    guarded = text_guided(jacobian, d_N, masks()[:2], null_RKD)
    for region, null_KD in enumerate(null_RKD):
        v_D, p_D = guarded.V_RD[region], plain.V_RD[region]
        assert float((null_KD @ v_D).abs().max()) < 1e-12
        assert float(v_D.norm()) == pytest.approx(1)
        assert float(v_D @ p_D) == pytest.approx(guarded.kept_R[region])
        assert float((outside[region] @ v_D).norm()) < float((outside[region] @ p_D).norm())


def test_wishes_that_cannot_be_met_are_refused() -> None:
    jacobian, d_N = DenseMap(random(N, D)), random(N, seed=1)
    nowhere_N = torch.where(masks()[1] > 0, torch.zeros(()), d_N)
    with pytest.raises(ValueError, match="gradient is zero in region 1"):
        text_guided(jacobian, nowhere_N, masks())
    with pytest.raises(ValueError, match="not finite in region 0"):
        text_guided(jacobian, d_N * float("nan"), masks())
    with pytest.raises(ValueError, match="does not answer to h"):
        text_guided(DenseMap(torch.zeros(N, D, dtype=torch.float64)), d_N, masks())
    with pytest.raises(ValueError, match="lies in the span"):
        text_guided(jacobian, d_N, masks()[:1], [torch.eye(D, dtype=torch.float64)])
    with pytest.raises(ValueError, match="one a region"):
        text_guided(jacobian, d_N, masks(), [torch.eye(D, dtype=torch.float64)])


def test_in_a_network_a_small_shift_moves_the_prediction_along_the_wish(
    tiny_checkpoint: Path,
) -> None:
    denoiser = load_denoiser(
        open_checkpoint(str(tiny_checkpoint)), torch.device("cpu"), h_layer="after"
    )
    x_BLYX, alpha = random(1, 3, 16, 16).float(), 0.5
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, 300)
    d_N = random(3 * 16 * 16, seed=1).float()
    mask_RN = torch.zeros(1, 3, 16, 16)
    mask_RN[..., 4:12] = 1
    found = text_guided(h_jacobian(denoiser, point, alpha, chunk=4), d_N, mask_RN.flatten(1))
    shift_BCYX = 1e-2 * found.V_RD.view_as(point.h_BCYX)

    def prediction(sign: int) -> torch.Tensor:
        with torch.no_grad():
            eps_BLYX = denoiser.decode(point, point.h_BCYX + sign * shift_BCYX)
        return predicted_x0(x_BLYX, eps_BLYX, alpha).flatten()

    wish_N = mask_RN.flatten() * d_N
    moved = float((prediction(1) - prediction(-1)) @ wish_N) / 2e-2
    assert moved / float(wish_N.norm()) == pytest.approx(found.gain_R[0], rel=2e-2)
