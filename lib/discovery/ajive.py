"""AJIVE: what the Jacobians of all regions share by the angles between their row spans, and what
each has for itself (Feng et al. 2018).

Unlike JIVE it does not iterate: each block is cut to its signal, the joint directions are those
that the signals' row spans have in common closer than noise or chance would bring them.

Shape suffixes: K rows of a block, D entries of h, M coordinates in the blocks' own span, R joint
directions, T signal directions of all blocks, P samples of a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.discovery.jive import span
from lib.discovery.random_frames import corner_of_frame, stacked_frames_norm

_QUANTILE = 0.95
_NOTHING = 1e-10
"""Relative size below which a row is rounding."""


@dataclass(frozen=True, slots=True)
class Ajive:
    """A joint space and the individual directions of each block, float64."""

    joint_RD: Tensor
    """Orthonormal rows, most common first."""
    individual: tuple[Tensor, ...]
    """Of each block rows (K, D), singular value times right vector, strongest first, orthogonal to
    the joint space.
    """
    squares_T: Tensor
    """Squared singular values of the stacked signal bases, falling: as many as there are blocks
    for a direction in all of them.
    """
    wedin_bound: float
    """A squared value of a truly joint direction would lie above this with 95 % confidence, given
    the noise in the blocks (Wedin's theorem, by resampling).
    """
    random_bound: float
    """The 95 % quantile of the largest squared value of random spans of the same ranks."""


def ajive(
    blocks: Sequence[Tensor],
    signal_ranks: Sequence[int],
    *,
    seed: int,
    joint_rank: int | Literal["bound"] = "bound",
    individual_ranks: Sequence[int] | Literal["threshold"] = "threshold",
    samples: int = 1000,
    centred: bool = False,
) -> Ajive:
    """The joint and individual directions of blocks (K_r, D), any float dtype, results on the CPU.

    `signal_ranks` says how many leading singular directions of each block are signal; the rest of
    its rows is the noise that Wedin's bound is estimated from. Hand in more rows than signal:
    without any noise that bound lets only exactly common directions pass.
    `joint_rank="bound"` counts the squared values above both bounds. A joint direction to which
    some block answers less than its signal threshold, the midpoint between the last signal value
    and the first noise value, is dropped (Feng et al. 2018); a given rank is kept
    as it is. Individual directions are those above the same threshold, or as many as given.
    `centred` removes every row's mean over D first, as AJIVE does for data; a Jacobian has no mean
    to remove.

    Raises:
        ValueError: a rank is impossible, or the blocks differ in width or are not finite.
    """
    rows = [block.detach().double().cpu() for block in blocks]
    if centred:
        rows = [x_KD - x_KD.mean(1, keepdim=True) for x_KD in rows]
    basis_MD = span(rows)
    reduced = [x_KD @ basis_MD.T for x_KD in rows]
    signals = [_signal(x_KM, rank) for x_KM, rank in zip(reduced, signal_ranks, strict=True)]
    _, common_T, joint_TM = torch.linalg.svd(
        torch.cat([signal.V_KM for signal in signals]), full_matrices=False
    )
    dimension = basis_MD.shape[1] - int(centred)
    rng = np.random.default_rng(seed)
    wedin = _wedin_bound(signals, dimension, samples, rng)
    chance_P = stacked_frames_norm(dimension, list(signal_ranks), samples, rng) ** 2
    random = float(np.quantile(chance_P, _QUANTILE))
    if joint_rank == "bound":
        joint_RM = joint_TM[: int((common_T**2 > max(wedin, random)).sum())]
        for x_KM, signal in zip(reduced, signals, strict=True):
            joint_RM = joint_RM[(x_KM @ joint_RM.T).norm(dim=0) >= signal.threshold]
    else:
        if not 0 <= joint_rank <= len(joint_TM):
            raise ValueError(f"the joint rank must lie in 0..{len(joint_TM)}, got {joint_rank}")
        joint_RM = joint_TM[:joint_rank]
    if individual_ranks == "threshold":
        limits = [(signal.threshold, len(signal.S_K)) for signal in signals]
    else:
        limits = [(0.0, rank) for rank in individual_ranks]
    individual = tuple(
        _individual(x_KM, joint_RM, *limit) @ basis_MD
        for x_KM, limit in zip(reduced, limits, strict=True)
    )
    return Ajive(joint_RM @ basis_MD, individual, common_T**2, wedin, random)


@dataclass(frozen=True, slots=True)
class _Signal:
    V_KM: Tensor
    S_K: NDArray[np.float64]
    """All singular values of the block, the noise too."""
    threshold: float


def _signal(x_KM: Tensor, rank: int) -> _Signal:
    _, s_K, v_KM = torch.linalg.svd(x_KM, full_matrices=False)
    available = int((s_K > _NOTHING * s_K[0]).sum())
    if not 1 <= rank <= available:
        raise ValueError(
            f"a block of numerical rank {available} cannot have the signal rank {rank}"
        )
    first_noise = float(s_K[rank]) if rank < len(s_K) else 0.0
    return _Signal(v_KM[:rank], s_K.numpy(), (float(s_K[rank - 1]) + first_noise) / 2)


def _individual(x_KM: Tensor, joint_RM: Tensor, threshold: float, rank: int) -> Tensor:
    """The block minus its joint part: its singular directions above the threshold, `rank` at
    most.
    """
    _, s_K, v_KM = torch.linalg.svd(x_KM - x_KM @ joint_RM.T @ joint_RM, full_matrices=False)
    kept = min(rank, int((s_K > max(threshold, _NOTHING * float(x_KM.norm()))).sum()))
    rows_KM: Tensor = s_K[:kept, None] * v_KM[:kept]
    return rows_KM


def _wedin_bound(
    signals: Sequence[_Signal], dimension: int, samples: int, rng: np.random.Generator
) -> float:
    """blocks - sum_r sin^2, the sine of block r bounded by |noise on random directions beside the
    signal| / its last signal value, on either side (Feng et al. 2018).
    """
    sine_P = np.zeros(samples)
    for signal in signals:
        rank = len(signal.V_KM)
        noise_K = signal.S_K[rank:]
        if not len(noise_K):
            continue
        sides = (
            (len(noise_K), min(rank, len(noise_K))),
            (dimension - rank, min(rank, dimension - rank)),
        )
        for sample in range(samples):
            frames = [corner_of_frame(space, len(noise_K), count, rng) for space, count in sides]
            norm = max(np.linalg.norm(noise_K[:, None] * frame, 2) for frame in frames)
            sine_P[sample] += min(norm / signal.S_K[rank - 1], 1) ** 2
    return float(np.quantile(len(signals) - sine_P, 1 - _QUANTILE))
