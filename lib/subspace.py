"""Top right singular directions of a linear map restricted to several regions, from one joint
basis.

Block Krylov with Ritz-residual expansion. All regions share the right basis Q and its images J Q,
so one forward product serves them all; each round every unfinished region sends its left Ritz
vectors back and its residuals join Q. It stops by the angle that residual and gap imply, not by
the change of a value.

Shape suffixes: R regions, N entries of the image, D of h, Q basis columns, K wanted directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.jacobian import LinearMap

_RANK_FLOOR = 1e-6


class NotFiniteError(ArithmeticError):
    """The linear map gave NaN or infinity."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The top singular triplets of diag(mask) J for one region."""

    V_KD: Tensor
    """Right singular vectors, unit rows, float32."""
    S_K: Tensor
    """Singular values, falling."""
    U_KN: Tensor
    """Left singular vectors, zero outside the region."""
    residual_K: Tensor
    """|J^T u - s v| / s, zero at an exact triplet."""
    gap_K: Tensor
    """Next singular value / this one; near 1 the single direction is ill-defined."""
    angle: float
    """Estimated sine of the largest angle between the span of V and the true one."""
    converged: bool


def top_directions(
    jacobian: LinearMap,
    masks_RN: Tensor,
    count: int,
    *,
    tolerance: float,
    max_rounds: int,
    generator: torch.Generator,
) -> tuple[Spectrum, ...]:
    """The `count` leading right singular directions of diag(m_r) J for every region r.

    Starts from J^T of masked noise, so the first basis already lies in the range. `generator` is a
    CPU generator. A region whose map has a lower rank than `count` gets fewer directions.

    Raises:
        NotFiniteError: a product is NaN or infinite.
    """
    regions, entries = masks_RN.shape
    # One column more than wanted, so that the gap behind the last wanted value is seen.
    noise_QN = torch.randn(regions * (count + 1), entries, generator=generator)
    noise_QN = noise_QN.to(masks_RN) * masks_RN.repeat_interleave(count + 1, 0)
    Q_QD = masks_RN.new_empty(0, jacobian.domain)
    JQ_QN = masks_RN.new_empty(0, entries)
    fresh_QD = _orthonormal(_finite(jacobian.vjp(noise_QN)), Q_QD)
    if not len(fresh_QD):
        return tuple(_nothing(Q_QD, JQ_QN) for _ in range(regions))
    spectra: list[Spectrum] = []
    for round_ in range(max_rounds):
        Q_QD = torch.cat([Q_QD, fresh_QD])
        JQ_QN = torch.cat([JQ_QN, _finite(jacobian.jvp(fresh_QD))])
        ritz = [_ritz(JQ_QN, mask_N, Q_QD, count) for mask_N in masks_RN]
        open_ = [r for r in range(regions) if round_ == 0 or not spectra[r].converged]
        back_KD = jacobian.vjp(torch.cat([ritz[r].U_KN * masks_RN[r] for r in open_])).split(
            [len(ritz[r].S_K) for r in open_]
        )
        new = dict(zip(open_, back_KD, strict=True))
        residuals_RKD = {r: new[r] - ritz[r].S_K[:, None] * ritz[r].V_KD for r in open_}
        spectra = [
            _spectrum(ritz[r], residuals_RKD[r], tolerance) if r in new else spectra[r]
            for r in range(regions)
        ]
        left = [residuals_RKD[r] for r in open_ if not spectra[r].converged]
        if not left:
            break
        fresh_QD = _orthonormal(_finite(torch.cat(left)), Q_QD)
        if not len(fresh_QD):
            break
    return tuple(spectra)


@dataclass(frozen=True, slots=True)
class _Ritz:
    V_KD: Tensor
    S_K: Tensor
    U_KN: Tensor
    next_value: float


def _ritz(JQ_QN: Tensor, mask_N: Tensor, Q_QD: Tensor, count: int) -> _Ritz:
    """Best triplets of diag(m) J within span(Q), from the small Gram matrix in float64."""
    support_N = mask_N > 0
    A_QN = (JQ_QN[:, support_N] * mask_N[support_N]).double()
    squares_Q, W_QQ = torch.linalg.eigh(A_QN @ A_QN.T)
    values_Q = squares_Q.flip(0).clamp_min(0).sqrt()
    W_QQ = W_QQ.flip(1)
    rank = int((values_Q > _RANK_FLOOR * values_Q[0]).sum()) if values_Q[0] > 0 else 0
    kept = min(count, rank)
    S_K = values_Q[:kept]
    W_QK = W_QQ[:, :kept]
    U_KN = JQ_QN.new_zeros(kept, len(mask_N))
    U_KN[:, support_N] = (W_QK.T @ A_QN / S_K[:, None]).to(JQ_QN)
    next_value = float(values_Q[kept]) if len(values_Q) > kept else 0.0
    V_KD = torch.nn.functional.normalize(W_QK.T.to(Q_QD) @ Q_QD, dim=1)
    return _Ritz(V_KD, S_K.to(JQ_QN), U_KN, next_value)


def _spectrum(ritz: _Ritz, residual_KD: Tensor, tolerance: float) -> Spectrum:
    """Angle estimate |[s_i |r_i|]| / (s_k^2 - s_{k+1}^2): residual over gap, for the Gram
    operator.
    """
    if not len(ritz.S_K):
        return _nothing(ritz.V_KD, ritz.U_KN)
    norm_K = residual_KD.norm(dim=1)
    following_K = torch.cat([ritz.S_K[1:], ritz.S_K.new_tensor([ritz.next_value])])
    split = float(ritz.S_K[-1] ** 2) - ritz.next_value**2
    angle = float((ritz.S_K * norm_K).norm()) / split if split > 0 else 1.0
    angle = min(angle, 1.0)
    return Spectrum(
        ritz.V_KD,
        ritz.S_K,
        ritz.U_KN,
        norm_K / ritz.S_K,
        following_K / ritz.S_K,
        angle,
        angle <= tolerance,
    )


def _nothing(V_0D: Tensor, U_0N: Tensor) -> Spectrum:
    """The spectrum of a region that does not respond."""
    empty_0 = V_0D.new_empty(0)
    return Spectrum(V_0D, empty_0, U_0N, empty_0, empty_0, 0.0, True)


def _finite(rows_KN: Tensor) -> Tensor:
    if not bool(torch.isfinite(rows_KN).all()):
        raise NotFiniteError("the Jacobian gave NaN or infinity")
    return rows_KN


def _orthonormal(rows_KD: Tensor, basis_QD: Tensor) -> Tensor:
    """Orthonormal rows spanning `rows` beyond `basis`; dependent ones are dropped."""
    scale_K = rows_KD.norm(dim=1, keepdim=True)
    rows_KD = rows_KD[(scale_K > 0).squeeze(1)] / scale_K[scale_K > 0][:, None]
    for _ in range(2):
        rows_KD = rows_KD - (rows_KD @ basis_QD.T) @ basis_QD
    kept_KD, R_KK = torch.linalg.qr(rows_KD.T)
    independent_K = R_KK.diagonal().abs() > _RANK_FLOOR
    kept_KD = kept_KD.T[independent_K]
    kept_KD = kept_KD - (kept_KD @ basis_QD.T) @ basis_QD
    return torch.nn.functional.normalize(kept_KD, dim=1)
