"""Top right singular directions of a linear map restricted to several regions.

One Golub-Kahan chain a region, all chains in lock-step: a round is one batch of reverse products
(a left vector of every open region) and one batch of forward products. A chain that starts from
one vector reaches the highest polynomial degree a product, which matters because the spectra of
networks fall slowly. Triplets are extracted from the joint basis of all chains. It stops by the
angle that residual and gap imply, not by the change of a value.

Shape suffixes: R regions, N entries of the image (M those of one region), D of the domain, Q basis
columns, K wanted directions, P left vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.discovery.golub_kahan import Chain, Spectrum
from lib.discovery.jacobian import LinearMap
from lib.discovery.joint_basis import JointBasis, empty_basis

_ADJOINT_LIMIT = 1e-2


class NotFiniteError(ArithmeticError):
    """The linear map gave NaN or infinity."""


class AdjointError(ArithmeticError):
    """Forward and reverse products belong to different maps."""


@dataclass(frozen=True, slots=True)
class Subspaces:
    """What was found for every region, and the basis it was found in."""

    spectra: tuple[Spectrum, ...]
    basis: JointBasis


def top_directions(
    jacobian: LinearMap,
    masks_RN: Tensor,
    counts: Sequence[int],
    *,
    tolerance: float,
    max_rounds: int,
    generator: torch.Generator,
    block: int = 1,
    start: Sequence[Tensor] = (),
) -> Subspaces:
    """The `counts[r]` leading right singular directions of diag(m_r) J for every region r.

    `generator` is a CPU generator. A region whose map has a lower rank gets fewer directions.
    `start` may hold directions (K, D) of a neighbouring timestep for every region, none (0, D)
    where there are none. `block` is the number of start vectors a region: a singular value that is
    repeated exactly m times needs m.

    Raises:
        NotFiniteError: a product is NaN or infinite.
        AdjointError: forward and reverse products disagree.
    """
    basis = empty_basis(masks_RN[0], jacobian.domain)
    seeds_R = torch.randint(2**62, (len(masks_RN),), generator=generator).tolist()
    chains = [
        Chain(mask_N, jacobian.domain, count, tolerance, torch.Generator().manual_seed(seed))
        for mask_N, count, seed in zip(masks_RN, counts, seeds_R, strict=True)
    ]
    known_RN = _responses(jacobian, masks_RN, start)
    for region, chain in enumerate(chains):
        chain.begin(block, known_RN[region : region + 1])
    for round_ in range(max_rounds):
        open_ = [chain for chain in chains if chain.open]
        if not open_:
            break
        sent_KN = torch.cat([chain.spread(chain.next_PM) for chain in open_])
        back_KD = finite(jacobian.vjp(sent_KN))
        parts = back_KD.split([len(chain.next_PM) for chain in open_])
        fresh = [chain.received(part) for chain, part in zip(open_, parts, strict=True)]
        fresh_KD = torch.cat(fresh)
        images_KN = finite(jacobian.jvp(fresh_KD)) if len(fresh_KD) else sent_KN[:0]
        if round_ == 0:
            check_adjoint(fresh_KD, images_KN, sent_KN, back_KD)
        basis = basis.extended(fresh_KD, images_KN)
        pieces = images_KN.split([len(rows_KD) for rows_KD in fresh])
        for chain, piece_KN in zip(open_, pieces, strict=True):
            chain.extract(basis)
            chain.advance(piece_KN)
    return Subspaces(tuple(chain.spectrum for chain in chains), basis)


def _responses(jacobian: LinearMap, masks_RN: Tensor, start: Sequence[Tensor]) -> Tensor:
    """What the map makes of the sum of every region's start directions, (R, N); zero for none."""
    known_RN = torch.zeros_like(masks_RN)
    present = [region for region, V_KD in enumerate(start) if len(V_KD)]
    if present:
        sums_KD = torch.stack([start[region].sum(0) for region in present])
        known_RN[present] = finite(jacobian.jvp(sums_KD)).to(known_RN)
    return known_RN


def check_adjoint(V_KD: Tensor, JV_KN: Tensor, U_LN: Tensor, JtU_LD: Tensor) -> None:
    """<J v, u> = <v, J^T u> for all products of a round, which costs no other ones.

    Raises:
        AdjointError: they differ.
    """
    if not len(V_KD):
        return
    ahead_KL, back_KL = JV_KN @ U_LN.T, V_KD @ JtU_LD.T
    error = float((ahead_KL - back_KL).abs().max() / back_KL.abs().max().clamp_min(1e-30))
    if error > _ADJOINT_LIMIT:
        raise AdjointError(
            f"forward and reverse products of the Jacobian differ by {error:.1e} of their size;"
            " expected the same map"
        )


def finite(rows_KN: Tensor) -> Tensor:
    """The rows themselves.

    Raises:
        NotFiniteError: one holds NaN or infinity.
    """
    if not bool(torch.isfinite(rows_KN).all()):
        raise NotFiniteError("the Jacobian gave NaN or infinity")
    return rows_KN
