"""The Golub-Kahan recursion of one region, with triplets taken from a basis shared by all.

Shape suffixes: N entries of the image, M those of the region, D of the domain, Q basis columns, P
left vectors, K wanted directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.discovery.joint_basis import JointBasis, orthonormal

_RANK_FLOOR = 1e-5
"""Singular values below this share of the largest count as zero in float32."""
_SPENT = 1e-5
"""A left vector of which less than this share is new brings rounding errors only."""
_ROUNDING = 8
"""Units of the last place that a product is taken to be off by."""
_CONFIRMATIONS = 2
"""Rounds in which the estimated angle must be within the tolerance: a single one may be luck."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The directions of one region: the top singular triplets of diag(mask) J, or what another
    method puts in their place, with the same meaning as far as it has one.
    """

    V_KD: Tensor
    """Right singular vectors, unit rows, the method's best first."""
    S_K: Tensor
    """Singular values; |diag(mask) J v| of every method."""
    U_KN: Tensor
    """Left singular vectors; the unit response. Zero outside the region."""
    residual_K: Tensor
    """|J^T u - s v| / s, zero at an exact triplet."""
    gap_K: Tensor
    """Next singular value / this one; near 1 the single direction is ill-defined."""
    angle: float
    """Estimated sine of the largest angle between the span of V and the true one."""
    converged: bool


class Chain:
    """The Golub-Kahan recursion of one region."""

    def __init__(
        self,
        mask_N: Tensor,
        domain: int,
        count: int,
        tolerance: float,
        generator: torch.Generator,
    ) -> None:
        self._support = mask_N.nonzero()[:, 0]
        self._mask_M = mask_N[self._support]
        self._entries = len(mask_N)
        self._count = count
        self._tolerance = tolerance
        self._generator = generator
        self._P_PM = mask_N.new_empty(0, len(self._support))
        self._Q_QD = mask_N.new_empty(0, domain)
        self._lengths: list[float] = []
        self._within = 0
        self._silent = 0
        self.open = True
        self.next_PM = self._P_PM
        self.spectrum = nothing(mask_N, domain)

    def begin(self, block: int, known_KN: Tensor) -> None:
        """Start from the responses `known` (K, N), filled up with noise to `block` left vectors."""
        known_PM = orthonormal(self.restricted(known_KN), self._P_PM)
        noise_PM = self._noise(max(block - len(known_PM), 0))
        self.next_PM = orthonormal(torch.cat([known_PM, noise_PM]), self._P_PM)
        self.open = len(self.next_PM) > 0

    def restricted(self, rows_KN: Tensor) -> Tensor:
        """diag(m) times the rows, kept on the region's entries only."""
        return rows_KN[:, self._support] * self._mask_M

    def spread(self, rows_PM: Tensor) -> Tensor:
        """What J^T must be applied to for J_r^T of the rows: mask again, over the whole image."""
        full_PN = rows_PM.new_zeros(len(rows_PM), self._entries)
        full_PN[:, self._support] = rows_PM * self._mask_M
        return full_PN

    def received(self, back_PD: Tensor) -> Tensor:
        """J_r^T p has come back; its part outside the chain, orthonormal."""
        self._P_PM = torch.cat([self._P_PM, self.next_PM])
        outside_PD = back_PD - (back_PD @ self._Q_QD.T) @ self._Q_QD
        length = float(torch.linalg.matrix_norm(outside_PD, 2)) if len(outside_PD) else 0.0
        self._lengths.append(length)
        floor = _RANK_FLOOR * max(self._lengths)
        kept_PD = outside_PD[outside_PD.norm(dim=1) > floor]
        fresh_PD = orthonormal(kept_PD, self._Q_QD, _RANK_FLOOR)
        self._Q_QD = torch.cat([self._Q_QD, fresh_PD])
        self._silent = 0 if len(fresh_PD) else self._silent + 1
        return fresh_PD

    def advance(self, images_PN: Tensor) -> None:
        """Choose the next left vectors, J_r q without what has been sent; noise where none is left.

        A chain that has run dry spans what its start could reach; noise that brings nothing either
        says that this is all.
        """
        if not self.open:
            return
        self.next_PM = orthonormal(self.restricted(images_PN), self._P_PM, _SPENT)
        if not len(self.next_PM):
            self.next_PM = orthonormal(self._noise(1), self._P_PM, _SPENT)
        if self._silent > 1 or not len(self.next_PM):
            self.open = False
            complete = len(self.spectrum.S_K) < self._count or self.spectrum.gap_K[-1] == 0
            angle = 0.0 if complete else self.spectrum.angle
            converged = angle <= self._tolerance
            self.spectrum = replace(self.spectrum, angle=angle, converged=converged)

    def extract(self, basis: JointBasis) -> None:
        """The best triplets in the joint basis, from the small Gram matrix in float64."""
        A_QM = self.restricted(basis.JQ_QN).double()
        squares_Q, W_QQ = torch.linalg.eigh(A_QM @ A_QM.T)
        values_Q = squares_Q.flip(0).clamp_min(0).sqrt()
        rank = int((values_Q > _RANK_FLOOR * values_Q[:1]).sum()) if len(values_Q) else 0
        kept = min(self._count + 1, rank)  # one more than wanted: the gap behind the last
        W_QK = W_QQ.flip(1)[:, :kept]
        S_K = values_Q[:kept]
        U_KM = (W_QK.T @ A_QM / S_K[:, None]).to(basis.JQ_QN)
        unsent_K = (U_KM - (U_KM @ self._P_PM.T) @ self._P_PM).norm(dim=1).double()
        # J_r^T of what has not been sent leaves the basis by about as much as the last ones did.
        rounding = _ROUNDING * torch.finfo(U_KM.dtype).eps * values_Q[:1]
        residual_K = unsent_K * max(self._lengths[-3:]) + rounding
        wanted = min(self._count, rank)
        angle = self._angle(S_K, residual_K, wanted)
        self._within = self._within + 1 if angle <= self._tolerance else 0
        V_KD = torch.nn.functional.normalize(W_QK[:, :wanted].T.to(basis.Q_QD) @ basis.Q_QD, dim=1)
        U_KN = U_KM.new_zeros(wanted, self._entries)
        U_KN[:, self._support] = U_KM[:wanted]
        following_K = torch.cat([S_K[1:], S_K.new_zeros(1)])[:wanted]
        S_K, residual_K = S_K[:wanted], residual_K[:wanted]
        self.open = self._within < _CONFIRMATIONS
        self.spectrum = Spectrum(
            V_KD,
            S_K.to(U_KM),
            U_KN,
            (residual_K / S_K).to(U_KM),
            (following_K / S_K).to(U_KM),
            angle,
            not self.open,
        )

    def _angle(self, S_K: Tensor, residual_K: Tensor, wanted: int) -> float:
        """|[s_i |r_i|]| / (s_k^2 - s_{k+1}^2), residual over gap for the Gram operator.

        The next value may still grow by its own residual, so that is taken off the gap.
        """
        if wanted < self._count or len(S_K) == wanted:
            return 1.0
        split = float(S_K[-2] ** 2 - S_K[-1] ** 2 - S_K[-1] * residual_K[-1])
        if split <= 0:
            return 1.0
        return min(float((S_K * residual_K)[:wanted].norm()) / split, 1.0)

    def _noise(self, rows: int) -> Tensor:
        noise_PM = torch.randn(rows, len(self._support), generator=self._generator)
        return noise_PM.to(self._mask_M) * self._mask_M


def nothing(mask_N: Tensor, domain: int) -> Spectrum:
    """The spectrum of a region that does not respond."""
    empty_0 = mask_N.new_empty(0)
    return Spectrum(
        mask_N.new_empty(0, domain), empty_0, mask_N.new_empty(0, len(mask_N)), empty_0, empty_0,
        0.0, True,
    )  # fmt: skip
