"""How many directions regions share and how many each has for itself, for `lib.discovery.jive`.

Two rules: what is stronger than chance (Lock et al. 2013), or what lies within an angle of every
region's span.

Shape suffixes: K rows of a block, D entries of h, T all rows of all blocks, P permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, radians

import torch
from torch import Tensor

from lib.discovery.jive import jive

_RANK_FLOOR = 1e-6
_ROUNDS = 10

_Shuffle = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class _Chance:
    generator: torch.Generator
    permutations: int
    level: float


def angle_rank(blocks: Sequence[Tensor], threshold_degrees: float) -> int:
    """How many directions lie within the angle of the row spans of all blocks (K, D).

    A unit x has sum_r |V_r x|^2 = sum_r cos^2(angle to block r); the squared singular values of
    the stacked orthonormal V_r are its stationary values, R of them where a direction is in all R
    spans. Counted are those of at least R cos^2(threshold): the root mean square of the cosines
    is that of an angle within the threshold. (For two blocks the direction between two principal
    vectors has half their angle.)

    Raises:
        ValueError: the threshold is outside 0..90 degrees.
    """
    if not 0 < threshold_degrees < 90:
        raise ValueError(f"the angle must lie between 0 and 90 degrees, got {threshold_degrees}")
    stacked_TD = torch.cat([row_basis(block) for block in blocks])
    squares_T = torch.linalg.eigvalsh(stacked_TD @ stacked_TD.T)
    return int((squares_T >= len(blocks) * cos(radians(threshold_degrees)) ** 2).sum())


def permutation_ranks(
    blocks: Sequence[Tensor],
    *,
    seed: int,
    permutations: int = 100,
    level: float = 0.05,
    joint_rank: int | None = None,
) -> tuple[int, tuple[int, ...]]:
    """The joint rank and each block's individual rank by the permutation test of Lock et al. 2013:
    leading singular values above the 1 - `level` quantile of the permuted ones.

    Joint: the columns (entries of h) of each block are permuted as a whole, differently for each
    block. That keeps every block's own spectrum and breaks what the blocks have in common.
    Individual: the entries of every row are permuted on their own. Thin factors have orthogonal
    rows already, which permuting would not change, so the rows are mixed by a random rotation
    first (a block's left side is arbitrary); the test then asks which values stand out of an even
    spectrum, and its answer depends on how many rows a block has.
    Joint values are tested without the individual part and the other way round, until the ranks
    stay (at most 10 rounds; the joint rank only rises). A given `joint_rank` is not tested.

    Raises:
        ValueError: as `jive`.
    """
    chance = _Chance(torch.Generator().manual_seed(seed), permutations, level)
    rows = [block.double().cpu() for block in blocks]
    own = [torch.zeros_like(x_KD) for x_KD in rows]
    joint = joint_rank or 0
    ranks: tuple[int, ...] = (0,) * len(rows)
    for _ in range(_ROUNDS):
        before = (joint, ranks)
        if joint_rank is None:
            rest = [x_KD - a_KD for x_KD, a_KD in zip(rows, own, strict=True)]
            joint = max(joint, _stronger_than_chance(rest, _shuffled_columns, chance))
        found = jive(rows, joint, ranks)
        single = [x_KD - x_KD @ found.joint_RD.T @ found.joint_RD for x_KD in rows]
        ranks = tuple(_stronger_than_chance([x_KD], _shuffled_rows, chance) for x_KD in single)
        if (joint, ranks) == before:
            break
        found = jive(rows, joint, ranks)
        bases = [torch.nn.functional.normalize(a_KD, dim=1) for a_KD in found.individual]
        own = [x_KD @ v_KD.T @ v_KD for x_KD, v_KD in zip(rows, bases, strict=True)]
    return joint, ranks


def row_basis(block_KD: Tensor) -> Tensor:
    """Orthonormal rows, float64, of the row span, strongest first; directions below 1e-6 of the
    strongest do not count.
    """
    _, s_K, v_KD = torch.linalg.svd(block_KD.double(), full_matrices=False)
    basis_KD: Tensor = v_KD[(s_K > _RANK_FLOOR * s_K[:1]) & (s_K > 0)]
    return basis_KD


def _stronger_than_chance(blocks: Sequence[Tensor], shuffled: _Shuffle, chance: _Chance) -> int:
    """The number of leading singular values of the stacked blocks above the quantile of theirs."""
    actual_T = _singular_values(torch.cat(list(blocks)))
    null_PT = torch.stack(
        [
            _singular_values(torch.cat([shuffled(x_KD, chance.generator) for x_KD in blocks]))
            for _ in range(chance.permutations)
        ]
    )
    above_T = actual_T > null_PT.quantile(1 - chance.level, dim=0)
    # Values of rounding size are no direction, whatever the permuted ones are.
    above_T &= actual_T > _RANK_FLOOR * actual_T[0]
    return int(above_T.long().cumprod(0).sum())


def _singular_values(rows_TD: Tensor) -> Tensor:
    squares_T: Tensor = torch.linalg.eigvalsh(rows_TD @ rows_TD.T)
    return squares_T.flip(0).clamp_min(0).sqrt()


def _shuffled_columns(x_KD: Tensor, generator: torch.Generator) -> Tensor:
    return x_KD[:, torch.randperm(x_KD.shape[1], generator=generator)]


def _shuffled_rows(x_KD: Tensor, generator: torch.Generator) -> Tensor:
    rows, width = x_KD.shape
    mixing_KK = torch.randn(rows, rows, generator=generator, dtype=torch.float64)
    mixed_KD: Tensor = torch.linalg.qr(mixing_KK).Q @ x_KD
    order_KD = torch.stack([torch.randperm(width, generator=generator) for _ in range(rows)])
    return mixed_KD.gather(1, order_KD)
