"""The published ways to singular directions of a region's Jacobian, written anew from the papers.

Sequential power iteration: Haas et al. 2024 as their code does it (one vector after the other, in
output space, deflated). Block subspace iteration: Haas et al. 2024, algorithm 1; Park et al. 2023;
Chen et al. 2024 (LOCO); Kouzelis et al. 2024, algorithm 2. Both start from fresh random vectors
and stop in the way that is best for them: the caller knows the truth.

Shape suffixes: N entries of the image, M of a region, D of h, K wanted directions, B a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.discovery.jacobian import LinearMap

TOLERANCES = tuple(10 ** (-exponent / 2) for exponent in range(6, 33))
"""Relative changes of an eigenvalue that are tried as a stopping rule, from 1e-3 to 1e-16."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a method gave, and after how many iterations."""

    V_KD: Tensor
    """Right singular vectors, unit rows."""
    S_K: Tensor
    iterations: tuple[int, ...]
    """Of every vector (sequential), or one number (block)."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The cheapest run of a method that meets an angle."""

    found: Found
    angle: float
    """True sine, of the span that was found."""
    tolerance: float
    """The stopping rule's; 0 where the truth itself stopped it."""
    reached: bool
    """Whether the angle was met within the iterations that were allowed."""


def sequential_power(
    jacobian: LinearMap,
    mask_N: Tensor,
    limits: Sequence[int],
    *,
    tolerance: float,
    generator: torch.Generator,
) -> Found:
    """One left vector after the other by u <- m J J^T u, deflated by those found before.

    A vector is done when its eigenvalue changes by at most `tolerance` of itself, or after as many
    iterations as `limits` gives it; `len(limits)` vectors. The published rule, an absolute change
    seen eleven times, is never better. One vjp and one jvp an iteration.
    """
    U_KN = mask_N.new_empty(0, len(mask_N))
    rows, values, iterations = [], [], []
    for limit in limits:
        u_N = torch.randn(len(mask_N), generator=generator, dtype=mask_N.dtype) * mask_N
        u_N = _deflated(u_N, U_KN)
        v_D, eigenvalue, done = u_N, 0.0, 0
        while done < limit:
            done += 1
            v_D = jacobian.vjp(u_N[None])[0]
            image_N = jacobian.jvp(v_D[None])[0] * mask_N
            before, eigenvalue = eigenvalue, float(image_N @ u_N)
            u_N = _deflated(image_N, U_KN)
            if abs(eigenvalue - before) <= tolerance * abs(eigenvalue):
                break
        U_KN = torch.cat([U_KN, u_N[None]])
        values.append(v_D.norm())
        rows.append(v_D / v_D.norm())
        iterations.append(done)
    return Found(torch.stack(rows), torch.stack(values), tuple(iterations))


def block_subspace(
    jacobian: LinearMap,
    mask_N: Tensor,
    count: int,
    *,
    oversampling: int,
    done: Callable[[Tensor], bool],
    max_iterations: int,
    generator: torch.Generator,
) -> Found:
    """V <- right singular vectors of (J^T m^2 J V)^T, a block of `count + oversampling` rows.

    `done` sees the first `count` rows after every iteration. One jvp batch, one vjp batch and one
    SVD an iteration.
    """
    start_BD = torch.randn(
        count + oversampling, jacobian.domain, generator=generator, dtype=mask_N.dtype
    )
    V_BD = torch.linalg.qr(start_BD.T)[0].T
    iterations, S_B = 0, V_BD.new_zeros(len(V_BD))
    while iterations < max_iterations:
        iterations += 1
        U_BN = jacobian.jvp(V_BD) * mask_N
        back_BD = jacobian.vjp(U_BN * mask_N)
        _, squares_B, V_BD = torch.linalg.svd(back_BD, full_matrices=False)
        S_B = squares_B.sqrt()
        if done(V_BD[:count]):
            break
    return Found(V_BD[:count], S_B[:count], (iterations,))


class SingularCoordinates:
    """A region's Jacobian in the coordinates of its own singular vectors: diag(S).

    Both methods only turn with a rotation of either side, and a Gaussian start stays Gaussian, so
    they take here the iterations that they take on the whole matrix, at next to no cost.
    """

    def __init__(self, S_M: Tensor) -> None:
        self._S_M = S_M
        self.domain = len(S_M)
        self.jvp_count = 0
        self.vjp_count = 0

    def jvp(self, V_KD: Tensor) -> Tensor:
        """J v for every row, (K, M)."""
        self.jvp_count += len(V_KD)
        return V_KD * self._S_M

    def vjp(self, U_KN: Tensor) -> Tensor:
        """J^T u for every row, (K, M)."""
        self.vjp_count += len(U_KN)
        return U_KN * self._S_M

    def angle(self, V_KD: Tensor) -> float:
        """True sine: here the exact span is that of the first unit vectors."""
        found_KD = torch.linalg.qr(V_KD.T)[0].T
        return float(torch.linalg.matrix_norm(found_KD[:, len(V_KD) :], 2))


def cheapest_power(S_M: Tensor, count: int, angle: float, *, limit: int, seed: int) -> Counted:
    """Sequential power with the loosest tolerance that meets `angle`, the truth being known.

    Where none does within `limit` iterations a vector, the run of the tightest.
    """
    region = SingularCoordinates(S_M)
    for tolerance in TOLERANCES:
        generator = torch.Generator().manual_seed(seed)
        found = sequential_power(
            region, torch.ones_like(S_M), [limit] * count, tolerance=tolerance, generator=generator
        )
        sine = region.angle(found.V_KD)
        if sine <= angle:
            return Counted(found, sine, tolerance, True)
    return Counted(found, sine, tolerance, False)


def usual(runs: Sequence[Counted]) -> Counted:
    """The median run by iterations: one lucky start is no measure."""
    return sorted(runs, key=lambda run: sum(run.found.iterations))[len(runs) // 2]


def cheapest_block(
    S_M: Tensor, count: int, angle: float, *, oversampling: int, limit: int, seed: int
) -> Counted:
    """Block subspace iteration, stopped by the truth in the first iteration that meets `angle`."""
    region = SingularCoordinates(S_M)
    found = block_subspace(
        region,
        torch.ones_like(S_M),
        count,
        oversampling=oversampling,
        done=lambda V_KD: region.angle(V_KD) <= angle,
        max_iterations=limit,
        generator=torch.Generator().manual_seed(seed),
    )
    sine = region.angle(found.V_KD)
    return Counted(found, sine, 0.0, sine <= angle)


def _deflated(u_N: Tensor, U_KN: Tensor) -> Tensor:
    """The unit vector of what `u` has outside the rows of U."""
    rest_N = u_N - (U_KN @ u_N) @ U_KN
    unit_N: Tensor = rest_N / rest_N.norm()
    return unit_N
