"""What one region has for itself beside what all regions share, from one image's Jacobian (Kouzelis
et al. 2024, algorithms 1 and 3): the regions' leading factors S V^T go through JIVE or AJIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lib.ajive import ajive
from lib.golub_kahan import Spectrum
from lib.jive import jive
from lib.jive_ranks import angle_rank, permutation_ranks
from lib.region_problem import RegionProblem, Search, answered
from lib.subspace import top_directions

ANGLE_DEGREES = 30.0
"""Directions within this angle of all regions' spans are shared, where no rank is given."""

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

    Raises:
        ValueError: a rank exceeds what the blocks hold, or a region has nothing of its own.
    """

    def split(blocks: Sequence[Tensor]) -> Sequence[Tensor]:
        joint, individual = joint_rank, individual_rank
        ranks: Sequence[int] | None = None
        if joint == "permutation" or individual == "permutation":
            given = joint if isinstance(joint, int) else None
            tested, ranks = permutation_ranks(blocks, seed=problem.seed, joint_rank=given)
            joint = tested if joint == "permutation" else joint
        if joint == "angle":
            joint = angle_rank(blocks, ANGLE_DEGREES)
        if isinstance(individual, int) or ranks is None:
            ranks = [int(individual)] * len(blocks)
        return jive(blocks, int(joint), ranks).individual

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
        tolerance=max(search.tolerance, 0.3),  # the last factors have hardly any gap behind them
        max_rounds=search.max_rounds + 2 * factor_rank,
        generator=problem.generator(),
        start=problem.start,
    )
    silent = [r for r, s in enumerate(found.spectra) if not len(s.S_K)]
    if silent:
        raise ValueError(f"region {silent[0]} does not depend on h, so there is nothing to compare")
    blocks = [(s.S_K[:, None] * s.V_KD).double().cpu() for s in found.spectra]
    answers = []
    for region, rows_KD in enumerate(split(blocks)):
        if not len(rows_KD):
            raise ValueError(
                f"region {region} has no direction of its own: all of its"
                f" {len(blocks[region])} factors are shared; expected regions that differ more, a"
                " smaller joint_rank or a larger factor_rank"
            )
        V_KD = torch.nn.functional.normalize(rows_KD[: search.count], dim=1)
        mask_N, own = problem.masks_RN[region], found.spectra[region]
        answers.append(answered(V_KD.to(own.V_KD), found.basis, mask_N, own))
    return tuple(answers)
