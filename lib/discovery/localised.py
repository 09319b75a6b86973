"""Directions that change one region and leave the rest of the image alone, in closed form.

With J_r = diag(m) J and the complement J_c = diag(1 - m) J, the whole rest of the image, they
maximise

    v^T J_r^T J_r v / v^T (J_c^T J_c + lambda s_1^2 I) v,

s_1 the top singular value of J_r. lambda trades locality for strength: without it a direction may
answer next to nowhere. The complement costs no passes of its own, since J v holds the inside and
the outside, and the residual of the eigenvalue equation is one reverse product.

Shape suffixes: R regions, N entries of the image, D of the domain, Q basis columns, K wanted
directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.discovery.golub_kahan import Spectrum, nothing
from lib.discovery.jacobian import LinearMap
from lib.discovery.joint_basis import JointBasis, empty_basis, orthonormal
from lib.discovery.region_problem import RegionProblem, Search
from lib.discovery.subspace import Subspaces, check_adjoint, finite

_SILENT = 1e-12
"""A region whose squared response is below this share of the image's does not respond."""
_RANK_FLOOR = 1e-5
"""Directions that answer with less than this share of the region's s_1 do so by rounding."""
_SPENT = 1e-4
"""A residual of which less than this share is new to the basis brings rounding errors only."""
_FASTEST, _SLOWEST = 0.2, 0.8
"""Between these the ratio of the last two rounds' gains is taken to lie, to foresee the rest."""


def local_directions(
    jacobian: LinearMap,
    masks_RN: Tensor,
    counts: Sequence[int],
    *,
    trade_off: float,
    tolerance: float,
    max_rounds: int,
    generator: torch.Generator,
) -> Subspaces:
    """The `counts[r]` most local directions of every region r, from one joint basis.

    Every round the residuals of all open regions join the basis (block Davidson). It stops when
    what is still to be gained, by extrapolation of the last two rounds, is below `tolerance`
    squared of every objective; `angle` is the root of that share. In a spectrum, S is |J_r v|,
    U the unit response in the region, `gap` the ratio of consecutive objectives and `residual` the
    last round's relative gain. It always starts from noise: from the directions of a neighbouring
    timestep the first rounds gain so little that the rest cannot be foreseen.

    Raises:
        NotFiniteError: a product is NaN or infinite.
        AdjointError: forward and reverse products disagree.
    """
    basis = empty_basis(masks_RN[0], jacobian.domain)
    searches = [
        _Search(
            mask_N,
            count,
            trade_off,
            tolerance,
            torch.randn(count, len(mask_N), generator=generator).to(mask_N) * mask_N,
        )
        for mask_N, count in zip(masks_RN, counts, strict=True)
    ]
    for round_ in range(max_rounds):
        sent_KN = torch.cat([s.round(basis) for s in searches if s.open] or [masks_RN[:0]])
        if not len(sent_KN):
            break
        back_KD = finite(jacobian.vjp(sent_KN))
        fresh_QD = orthonormal(back_KD, basis.Q_QD, _SPENT)
        if not len(fresh_QD):  # the basis holds all residuals: there is nothing to gain
            for search in searches:
                search.finish()
            break
        images_QN = finite(jacobian.jvp(fresh_QD))
        if round_ == 0:
            check_adjoint(fresh_QD, images_QN, sent_KN, back_KD)
        basis = basis.extended(fresh_QD, images_QN)
    return Subspaces(tuple(search.spectrum(basis) for search in searches), basis)


def localised_directions(
    problem: RegionProblem, search: Search, trade_off: float
) -> tuple[Spectrum, ...]:
    """`local_directions` of one image, as a method."""
    return local_directions(
        problem.jacobian,
        problem.masks_RN,
        [search.count] * len(problem.masks_RN),
        trade_off=trade_off,
        tolerance=search.tolerance,
        max_rounds=search.max_rounds,
        generator=problem.generator(),
    ).spectra


def localised_in(basis: JointBasis, mask_N: Tensor, count: int, trade_off: float) -> Pencil:
    """The best `count` + 1 directions inside a basis: another trade-off needs no other passes."""
    inside_QQ, outside_QQ = basis.gram(mask_N), basis.gram(1 - mask_N)
    top = float(torch.linalg.eigvalsh(inside_QQ)[-1]) if len(inside_QQ) else 0.0
    if top <= _SILENT * float(inside_QQ.trace() + outside_QQ.trace()):
        return Pencil(inside_QQ[:0], inside_QQ.new_empty(0), inside_QQ, outside_QQ)
    ridge_QQ = trade_off * top * torch.eye(len(inside_QQ)).to(inside_QQ)
    outside_QQ = outside_QQ + ridge_QQ
    L_QQ = torch.linalg.cholesky(outside_QQ)
    half_QQ = torch.linalg.solve_triangular(L_QQ, inside_QQ, upper=False)
    whole_QQ = torch.linalg.solve_triangular(L_QQ, half_QQ.T, upper=False)
    values_Q, Y_QQ = torch.linalg.eigh((whole_QQ + whole_QQ.T) / 2)
    Z_QQ = torch.linalg.solve_triangular(L_QQ.T, Y_QQ.flip(1), upper=True)
    Z_KQ = torch.nn.functional.normalize(Z_QQ[:, : count + 1].T, dim=1)
    answers_K = ((Z_KQ @ inside_QQ) * Z_KQ).sum(1) > _RANK_FLOOR**2 * top
    kept = int(answers_K.long().cumprod(0).sum())
    return Pencil(Z_KQ[:kept], values_Q.flip(0)[:kept], inside_QQ, outside_QQ)


@dataclass(frozen=True, slots=True)
class Pencil:
    """Solutions of A z = theta B z in a basis, best first, float64."""

    Z_KQ: Tensor
    """Unit rows."""
    theta_K: Tensor
    inside_QQ: Tensor
    """A, the Gram matrix of the region."""
    outside_QQ: Tensor
    """B, that of the complement with the trade-off on its diagonal."""

    def objective(self, Z_KQ: Tensor) -> Tensor:
        """z^T A z / z^T B z of every row."""
        inside_K = ((Z_KQ @ self.inside_QQ) * Z_KQ).sum(1)
        return inside_K / ((Z_KQ @ self.outside_QQ) * Z_KQ).sum(1)


class _Search:
    """One region's way to its directions."""

    def __init__(
        self, mask_N: Tensor, count: int, trade_off: float, tolerance: float, noise_KN: Tensor
    ) -> None:
        self._mask_N = mask_N
        self._count = count
        self._trade_off = trade_off
        self._tolerance = tolerance
        self._noise_KN = noise_KN
        """What is sent back, once, while the basis holds fewer directions than are wanted."""
        self._Z_KQ = mask_N.new_empty(0, 0).double()
        self._gain_K = mask_N.new_empty(0).double()
        self._left_K = mask_N.new_empty(0).double()
        self.open = True

    def round(self, basis: JointBasis) -> Tensor:
        """Solve in the basis; the cotangents m^2 y - theta (1 - m)^2 y of the residuals, (K, N),
        none when the region is done.
        """
        found = self._solved(basis)
        Z_KQ, theta_K = found.Z_KQ[: self._count], found.theta_K[: self._count]
        noise_KN = self._noise_KN[len(Z_KQ) :]
        self._noise_KN = noise_KN[:0]
        if not len(noise_KN) and (not len(Z_KQ) or self._angle() <= self._tolerance):
            self.open = False
            return noise_KN
        more_K = self._left_K > self._tolerance**2
        y_KN = Z_KQ[more_K].to(basis.JQ_QN) @ basis.JQ_QN
        outside_KN = theta_K[more_K, None].to(y_KN) * (1 - self._mask_N) ** 2 * y_KN
        return torch.cat([self._mask_N**2 * y_KN - outside_KN, noise_KN])

    def finish(self) -> None:
        """No product can bring more: what has been found is all there is."""
        self._left_K = torch.zeros_like(self._gain_K)
        self.open = False

    def spectrum(self, basis: JointBasis) -> Spectrum:
        """The directions in the whole basis, which other regions may have extended since."""
        found = self._solved(basis) if self.open else self._in(basis)
        Z_KQ, theta_K = found.Z_KQ[: self._count], found.theta_K
        if not len(Z_KQ):
            return nothing(self._mask_N, basis.Q_QD.shape[1])
        V_KD = torch.nn.functional.normalize(Z_KQ.to(basis.Q_QD) @ basis.Q_QD, dim=1)
        U_KN = self._mask_N * (Z_KQ.to(basis.JQ_QN) @ basis.JQ_QN)
        S_K = U_KN.norm(dim=1)
        following_K = torch.cat([theta_K[1:], theta_K.new_zeros(1)])[: len(Z_KQ)]
        unknown = len(Z_KQ) - len(self._gain_K)
        return Spectrum(
            V_KD,
            S_K,
            U_KN / S_K[:, None],
            torch.nn.functional.pad(self._gain_K, (0, unknown), value=1.0).to(S_K),
            (following_K / theta_K[: len(Z_KQ)]).to(S_K),
            self._angle(),
            self._angle() <= self._tolerance,
        )

    def _in(self, basis: JointBasis) -> Pencil:
        return localised_in(basis, self._mask_N, self._count, self._trade_off)

    def _solved(self, basis: JointBasis) -> Pencil:
        """The eigenproblem in the basis; takes note of what the last round has gained."""
        found = self._in(basis)
        Z_KQ, theta_K = found.Z_KQ[: self._count], found.theta_K[: self._count]
        before_KQ = torch.nn.functional.pad(self._Z_KQ, (0, Z_KQ.shape[1] - self._Z_KQ.shape[1]))
        gain_K = torch.ones_like(theta_K)
        known = min(len(before_KQ), len(theta_K))
        gain_K[:known] -= found.objective(before_KQ[:known]) / theta_K[:known]
        gain_K = gain_K.clamp_min(0)
        rate_K = torch.full_like(gain_K, _SLOWEST)
        shared = min(len(self._gain_K), len(gain_K))
        rate_K[:shared] = gain_K[:shared] / self._gain_K[:shared].clamp_min(1e-12)
        rate_K = rate_K.clamp(_FASTEST, _SLOWEST)
        self._left_K = gain_K * rate_K / (1 - rate_K)
        self._Z_KQ, self._gain_K = Z_KQ, gain_K
        return found

    def _angle(self) -> float:
        return min(float(self._left_K.max()) ** 0.5, 1.0) if len(self._left_K) else 1.0
