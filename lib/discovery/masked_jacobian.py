"""The plain method: top right singular directions of the region-masked Jacobian (Haas et al. 2024,
eq. 9 and algorithm 1; Kouzelis et al. 2024, algorithm 2).
"""

from __future__ import annotations

from lib.discovery.golub_kahan import Spectrum
from lib.discovery.region_problem import RegionProblem, Search
from lib.discovery.subspace import top_directions


def masked_jacobian(problem: RegionProblem, search: Search) -> tuple[Spectrum, ...]:
    """The leading right singular directions of diag(m_r) J for every region r."""
    return top_directions(
        problem.jacobian,
        problem.masks_RN,
        [search.count] * len(problem.masks_RN),
        tolerance=search.tolerance,
        max_rounds=search.max_rounds,
        generator=problem.generator(),
        start=problem.start,
    ).spectra
