"""How many products of the Jacobian each method takes, for a plan.

The iterations stop by their own estimate of the angle, so these are lines through what was measured
on held-out faces with the embedded model at the default tolerance of 0.1. A region's chain for k
directions takes about 5 + 1.7 k rounds of one product of either kind; on a map with a flatter
spectrum (the rest of an image, or anything of x_t) 10 + 1.8 k. The generalised eigenproblem grows
one basis for all regions, of about 30 + 5 columns a direction and region. A tolerance three times
as strict or as loose costs about a fifth more or less.
"""

from __future__ import annotations

from pipelines.discovery_config import (
    AjiveDiscovery,
    JacobianDiscovery,
    JiveDiscovery,
    LocalisedDiscovery,
    NullSpaceDiscovery,
    PullbackDiscovery,
    TextDiscovery,
)
from pipelines.reference_config import ReferenceDiscovery

OwnDiscovery = (
    JacobianDiscovery
    | LocalisedDiscovery
    | NullSpaceDiscovery
    | JiveDiscovery
    | AjiveDiscovery
    | PullbackDiscovery
    | TextDiscovery
    | ReferenceDiscovery
)
"""The methods that find directions in one image from its Jacobian."""

_WARM = 0.8
"""Cost of a timestep whose search starts from the one above, in units of the first."""
TEXT_ROUNDS = 60
"""Limit of a text-guided null space, as the other methods' default."""


def estimated_products(discover: OwnDiscovery, regions: int) -> int:
    """Forward and reverse products together for one image, all timesteps."""
    steps = len(discover.timesteps)
    match discover:
        case TextDiscovery():
            return steps * regions * (1 + 2 * _complement(discover.null_rank, TEXT_ROUNDS))
        case ReferenceDiscovery():
            return 2 * regions * discover.basis
        case LocalisedDiscovery():
            wanted = regions * discover.directions
            columns = min(30 + 5 * wanted, wanted * discover.max_rounds)
            return 2 * steps * columns
        case PullbackDiscovery():
            rank = discover.directions if discover.transport is None else discover.basis
            return 2 * min(_flat(rank), discover.max_rounds)
        case NullSpaceDiscovery():
            own = _warm(_own(discover, discover.directions), steps)
            rest = steps * _complement(discover.null_rank, discover.max_rounds)
            return 2 * regions * (own + rest)
        case JiveDiscovery() | AjiveDiscovery():
            limit = discover.max_rounds + 2 * discover.factor_rank
            return 2 * regions * _warm(min(_falling(discover.factor_rank), limit), steps)
        case JacobianDiscovery():
            return 2 * regions * _warm(_own(discover, discover.directions), steps)


def _falling(rank: int) -> int:
    return round(5 + 1.7 * rank)


def _flat(rank: int) -> int:
    return round(10 + 1.8 * rank)


def _own(discover: JacobianDiscovery | NullSpaceDiscovery, rank: int) -> int:
    rounds = _flat(rank) if discover.space == "x" else _falling(rank)
    return min(rounds, discover.max_rounds)


def _complement(rank: int, max_rounds: int) -> int:
    return min(_flat(rank), max_rounds + 2 * rank) if rank else 0


def _warm(rounds: int, steps: int) -> int:
    return round(rounds * (1 + _WARM * (steps - 1)))
