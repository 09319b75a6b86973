"""The Krylov basis that a wanted change of the image spans: where a direction towards it is looked
for.

Shape suffixes: N entries of the image, D of the domain, Q basis columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.discovery.jacobian import LinearMap
from lib.discovery.joint_basis import JointBasis, empty_basis, orthonormal
from lib.discovery.subspace import check_adjoint, finite

_SPENT = 1e-5
"""A vector of which less than this share is new brings rounding errors only."""


def target_basis(jacobian: LinearMap, weight_N: Tensor, target_N: Tensor, size: int) -> JointBasis:
    """An orthonormal basis of span{(J^T W^2 J)^i J^T W^2 d, i < size}, W = diag(weight), d the
    target, and its images under J.

    Golub-Kahan bidiagonalisation of W J from W d (Paige & Saunders 1982, the space in which LSQR
    solves min |W (J v - d)|), reorthogonalised. Its first vector is that of T-LOCO, J^T W^2 d; it
    is smaller than `size` where the target answers to fewer directions, and empty where J^T W^2 d
    is zero. One reverse and one forward product a column.

    Raises:
        NotFiniteError: a product is NaN or infinite.
        AdjointError: forward and reverse products disagree.
    """
    basis = empty_basis(weight_N, jacobian.domain)
    left_PN = orthonormal((weight_N * target_N)[None], weight_N.new_empty(0, len(weight_N)))
    while len(basis.Q_QD) < size and len(left_PN) > len(basis.Q_QD):
        sent_1N = weight_N * left_PN[-1:]
        back_1D = finite(jacobian.vjp(sent_1N))
        fresh_1D = orthonormal(back_1D, basis.Q_QD, _SPENT)
        if not len(fresh_1D):
            break
        image_1N = finite(jacobian.jvp(fresh_1D))
        if not len(basis.Q_QD):
            check_adjoint(fresh_1D, image_1N, sent_1N, back_1D)
        basis = JointBasis(torch.cat([basis.Q_QD, fresh_1D]), torch.cat([basis.JQ_QN, image_1N]))
        fresh_1N = orthonormal(weight_N * image_1N, left_PN, _SPENT)
        left_PN = torch.cat([left_PN, fresh_1N])
    return basis
