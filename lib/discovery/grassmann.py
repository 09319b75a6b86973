"""Subspaces of several images: their mean, and a direction of one carried into another (Park et
al. 2023).

A local basis is known up to rotation, so it is the span that is averaged: a point of the Grassmann
manifold, with the geodesic distance sqrt(sum of squared principal angles).

Shape suffixes: K directions of a basis, D entries of h, E entries of x, M coordinates in the span
of all bases, B bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lib.discovery.jive import span
from lib.discovery.signs import fixed_sign

_ORTHONORMAL = 1e-4
_LEFT = 1e-6


@dataclass(frozen=True, slots=True)
class SubspaceMean:
    """The Fréchet mean of subspaces."""

    basis_KD: Tensor
    """Orthonormal rows, float64: the directions of the mean that the subspaces agree on most come
    first; the largest entry of each is positive.
    """
    agreement_K: Tensor
    """Mean squared cosine between each row and the subspaces: 1 where all contain it."""
    iterations: int
    converged: bool
    spread: float
    """Root mean square of the geodesic distance to the subspaces, radians."""


def frechet_mean(
    bases: Sequence[Tensor], *, tolerance: float = 1e-10, max_iterations: int = 200
) -> SubspaceMean:
    """The subspace with the least mean squared geodesic distance to those of the orthonormal rows
    (K, D), any float dtype.

    Starts from the mean of the projectors and averages logarithms (Karcher's iteration; maps as in
    Edelman, Arias and Smith 1998), in coordinates of the span of all bases, which holds the mean.
    Unique where the subspaces lie within a quarter turn of each other; `spread` tells. The result
    does not depend on which basis a subspace comes in. Stops when the mean of the logarithms, in
    radians, is at most `tolerance`; steps that lengthen it are halved.

    Raises:
        ValueError: there is no basis, shapes differ, or rows are not orthonormal.
    """
    shapes = {tuple(basis.shape) for basis in bases}
    if len(shapes) != 1:
        raise ValueError(f"bases of one shape are expected, got {sorted(shapes)}")
    for basis in bases:
        identity_KK = torch.eye(len(basis), dtype=torch.float64, device=basis.device)
        error = float((basis.double() @ basis.double().T - identity_KK).abs().max())
        if not error <= _ORTHONORMAL:
            raise ValueError(f"a basis needs orthonormal rows, these are off by {error:.1e}")
    span_MD = span(bases)
    points = [_orthonormal(basis.double() @ span_MD.T) for basis in bases]
    stacked_M = torch.cat(points)
    mean_KM = torch.linalg.svd(stacked_M, full_matrices=False).Vh[: len(points[0])]
    step, iterations = 1.0, 0
    tangent_KM, spread = _mean_log(mean_KM, points)
    while float(tangent_KM.norm()) > tolerance and iterations < max_iterations:
        tried_KM = exponential(mean_KM, step * tangent_KM)
        next_KM, next_spread = _mean_log(tried_KM, points)
        iterations += 1
        if float(next_KM.norm()) < float(tangent_KM.norm()):
            mean_KM, tangent_KM, spread = tried_KM, next_KM, next_spread
        else:
            step /= 2
    inner_KK = (mean_KM @ stacked_M.T) @ (stacked_M @ mean_KM.T) / len(points)
    agreement_K, turn_KK = torch.linalg.eigh(inner_KK)
    basis_KD = turn_KK.flip(1).T @ mean_KM @ span_MD
    signs_K = basis_KD.new_tensor([fixed_sign(v_D) for v_D in basis_KD])
    return SubspaceMean(
        signs_K[:, None] * basis_KD,
        agreement_K.flip(0).clamp(0, 1),
        iterations,
        float(tangent_KM.norm()) <= tolerance,
        spread,
    )


def logarithm(from_KD: Tensor, to_KD: Tensor) -> Tensor:
    """The tangent (K, D) at the span of `from` that leads to the span of `to`, both orthonormal
    rows; its norm is the geodesic distance. Orthogonal to `from`.
    """
    near_KK, cosine_K, far_KK = torch.linalg.svd(from_KD @ to_KD.T)
    end_KD = far_KK @ to_KD
    across_KD = end_KD - (end_KD @ from_KD.T) @ from_KD
    sine_K = across_KD.norm(dim=1)
    angle_K = torch.atan2(sine_K, cosine_K)
    # sine / angle tends to 1: no division where a principal angle is zero
    scale_K = torch.where(
        sine_K > 0, angle_K / sine_K.where(sine_K > 0, torch.ones_like(sine_K)), 1
    )
    rows_KD: Tensor = near_KK @ (scale_K[:, None] * across_KD)
    return rows_KD


def exponential(from_KD: Tensor, tangent_KD: Tensor) -> Tensor:
    """Orthonormal rows of the span reached from that of `from` along a tangent orthogonal to it."""
    left_KK, angle_K, across_KD = torch.linalg.svd(tangent_KD, full_matrices=False)
    turned_KD = angle_K.cos()[:, None] * (left_KK.T @ from_KD) + angle_K.sin()[:, None] * across_KD
    return _orthonormal(turned_KD)


def transported(u_0_D: Tensor, U_1_KD: Tensor, V_1_KE: Tensor) -> Tensor:
    """v = V_1^T (U_1 u_0) of unit norm, (E) in the dtype of V_1: the direction in x whose h is
    nearest to `u_0` of another image (Park et al. 2023), for the left (U_1, of h) and right (V_1,
    of x) singular vectors of dh/dx at the new image, orthonormal rows.

    Raises:
        ValueError: shapes do not fit, or `u_0` is orthogonal to all of U_1.
    """
    if len(U_1_KD) != len(V_1_KE) or U_1_KD.shape[1] != u_0_D.numel():
        raise ValueError(
            f"a direction of {u_0_D.numel()} entries needs as many bases of that width in h as in"
            f" x, got {tuple(U_1_KD.shape)} and {tuple(V_1_KE.shape)}"
        )
    part_K = U_1_KD.double() @ u_0_D.flatten().double()
    if not float(part_K.norm()) > _LEFT * float(u_0_D.double().norm()):
        raise ValueError(
            f"the direction is orthogonal to the {len(U_1_KD)} directions of the other image:"
            " nothing of it can be carried over"
        )
    v_E: Tensor = part_K @ V_1_KE.double()
    return torch.nn.functional.normalize(v_E, dim=0).to(V_1_KE)


def _mean_log(mean_KM: Tensor, points: Sequence[Tensor]) -> tuple[Tensor, float]:
    tangents_BKM = torch.stack([logarithm(mean_KM, point_KM) for point_KM in points])
    return tangents_BKM.mean(0), sqrt(float(tangents_BKM.square().sum()) / len(points))


def _orthonormal(rows_KM: Tensor) -> Tensor:
    """The nearest orthonormal rows (the polar factor), which keeps their order and sense."""
    u_KK, _, v_KM = torch.linalg.svd(rows_KM, full_matrices=False)
    nearest_KM: Tensor = u_KK @ v_KM
    return nearest_KM
