"""What one region has for itself beside what all regions share, from one image's Jacobian (Kouzelis
et al. 2024, algorithms 1 and 3): the regions' leading factors S V^T go through JIVE or AJIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lib.discovery.ajive import ajive
from lib.discovery.golub_kahan import Spectrum
from lib.discovery.jive import jive
from lib.discovery.jive_ranks import angle_rank, permutation_ranks
from lib.discovery.region_problem import RegionProblem, Search, answered
from lib.discovery.subspace import top_directions

ANGLE_DEGREES = 30.0
"""Directions within this angle of all regions' spans are shared, where no rank is given."""

_FACTOR_TOLERANCE = 0.3
"""Of the factors' angle: the last of them have hardly any gap behind them."""
_NOTHING = 1e-4
"""Individual rows below this share of the region's strongest factor come from rounding."""
_FACTOR_ROUNDS = 2
"""More rounds for every factor than a search for a few directions is given."""

Split = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Blocks S V^T (K, D) -> each region's individual rows (singular value times direction)."""


def jive_directions(
    problem: RegionProblem,
    search: Search,
    *,
    factor_rank: int,
    joint_rank: int | Literal["permutation", "angle"],
    individual_rank: int | Literal["permutation"],
) -> tuple[Spectrum, ...]:
    """The leading individual directions of every region by JIVE (Lock et al. 2013).

    `factor_rank` singular directions of every region enter, as many of them as it has. They are
    found to an angle of 0.3 where `search.tolerance` asks for less.

    Raises:
        ValueError: the joint rank exceeds what the blocks hold, a region does not respond or has
            nothing of its own.
        NotFiniteError, AdjointError: as `lib.discovery.subspace.top_directions`.
    """

    def split(blocks: Sequence[Tensor]) -> Sequence[Tensor]:
        joint = angle_rank(blocks, ANGLE_DEGREES) if joint_rank == "angle" else joint_rank
        ranks: Sequence[int] = ()
        if joint == "permutation" or individual_rank == "permutation":
            given = None if joint == "permutation" else joint
            joint, ranks = permutation_ranks(blocks, seed=problem.seed, joint_rank=given)
        if individual_rank != "permutation":
            ranks = [min(individual_rank, len(block)) for block in blocks]
        return jive(blocks, joint, ranks).individual

    return _individual(problem, search, factor_rank, split)


def ajive_directions(
    problem: RegionProblem,
    search: Search,
    *,
    factor_rank: int,
    joint_rank: int | Literal["bound"],
    individual_rank: int,
) -> tuple[Spectrum, ...]:
    """The same by AJIVE (Feng et al. 2018); half of the factors count as signal.

    Raises:
        ValueError: as `jive_directions`.
    """

    def split(blocks: Sequence[Tensor]) -> Sequence[Tensor]:
        signal = [max(len(block) // 2, 1) for block in blocks]
        return ajive(
            blocks,
            signal,
            seed=problem.seed,
            joint_rank=joint_rank,
            individual_ranks=[min(individual_rank, rank) for rank in signal],
        ).individual

    return _individual(problem, search, factor_rank, split)


def _individual(
    problem: RegionProblem, search: Search, factor_rank: int, split: Split
) -> tuple[Spectrum, ...]:
    found = top_directions(
        problem.jacobian,
        problem.masks_RN,
        [factor_rank] * len(problem.masks_RN),
        tolerance=max(search.tolerance, _FACTOR_TOLERANCE),
        max_rounds=search.max_rounds + _FACTOR_ROUNDS * factor_rank,
        generator=problem.generator(),
        start=problem.start,
    )
    for name, spectrum in zip(problem.names, found.spectra, strict=True):
        if not len(spectrum.S_K):
            raise ValueError(f"region {name} does not depend on h: there is nothing to compare")
    blocks = [(s.S_K[:, None] * s.V_KD).double().cpu() for s in found.spectra]
    answers = []
    for region, rows_KD in enumerate(split(blocks)):
        strong_K = rows_KD.norm(dim=1) > _NOTHING * float(blocks[region][0].norm())
        if not bool(strong_K.any()):
            raise ValueError(
                f"region {problem.names[region]} has no direction of its own: all of its"
                f" {len(blocks[region])} factors are shared; expected regions that differ more, a"
                " smaller joint_rank or a larger factor_rank"
            )
        V_KD = torch.nn.functional.normalize(rows_KD[strong_K][: search.count], dim=1)
        mask_N, own = problem.masks_RN[region], found.spectra[region]
        answers.append(answered(V_KD.to(own.V_KD), found.basis, mask_N, own))
    return tuple(answers)
