"""An orthonormal basis of a linear map's domain together with the images of its vectors.

All regions of an image share one: a forward product gives the response of the whole image, so it
serves every region, every later method (JIVE, the generalised eigenproblem) and every trade-off
without another pass of the network.

Shape suffixes: Q basis columns, K vectors, D entries of the domain, N of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DEPENDENT = 1e-3
"""A vector of which less than this share lies outside the basis adds only rounding errors."""

_ENTRIES = 1 << 16
"""Entries of the image that are in float64 at once: bounds memory."""


@dataclass(frozen=True, slots=True)
class JointBasis:
    """Orthonormal rows and what the map makes of them."""

    Q_QD: Tensor
    JQ_QN: Tensor

    def extended(self, V_KD: Tensor, JV_KN: Tensor) -> JointBasis:
        """The basis with unit rows `V` and their images joined; dependent parts are left out."""
        for _ in range(2):
            along_KQ = V_KD @ self.Q_QD.T
            V_KD, JV_KN = V_KD - along_KQ @ self.Q_QD, JV_KN - along_KQ @ self.JQ_QN
        squares_K, W_KK = torch.linalg.eigh((V_KD @ V_KD.T).double())
        kept = squares_K > _DEPENDENT**2
        mix_KK = (W_KK[:, kept] / squares_K[kept].sqrt()).T.to(V_KD)
        return JointBasis(
            torch.cat([self.Q_QD, mix_KK @ V_KD]), torch.cat([self.JQ_QN, mix_KK @ JV_KN])
        )

    def gram(self, weight_N: Tensor) -> Tensor:
        """(J Q)^T diag(weight^2) J Q in the basis, (Q, Q) float64."""
        support_N = weight_N > 0
        A_QN = self.JQ_QN[:, support_N] * weight_N[support_N]
        gram_QQ = A_QN.new_zeros(len(A_QN), len(A_QN), dtype=torch.float64)
        for part_QN in A_QN.split(_ENTRIES, dim=1):
            gram_QQ += part_QN.double() @ part_QN.double().T
        return gram_QQ


def empty_basis(like_N: Tensor, domain: int) -> JointBasis:
    """A basis without vectors, of the dtype and device of `like`, for images of its length."""
    return JointBasis(like_N.new_empty(0, domain), like_N.new_empty(0, len(like_N)))


def orthonormal(rows_KD: Tensor, basis_QD: Tensor, floor: float = 1e-6) -> Tensor:
    """Orthonormal rows spanning `rows` beyond the orthonormal `basis`; dependent ones are dropped.

    `floor` is relative to the norm of each row.
    """
    scale_K = rows_KD.norm(dim=1)
    rows_KD = rows_KD[scale_K > 0] / scale_K[scale_K > 0][:, None]
    for _ in range(2):
        rows_KD = rows_KD - (rows_KD @ basis_QD.T) @ basis_QD
    kept_DK, R_KK = torch.linalg.qr(rows_KD.T)
    kept_KD = kept_DK.T[R_KK.diagonal().abs() > floor]
    kept_KD = kept_KD - (kept_KD @ basis_QD.T) @ basis_QD
    return torch.nn.functional.normalize(kept_KD, dim=1)
