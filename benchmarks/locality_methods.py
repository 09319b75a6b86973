"""The directions that `benchmarks.locality` compares: one a method and region, and what they cost.

All are found at the same timestep of the same face, in the same units; only the rule that picks
them differs.

Shape suffixes: R regions, N entries of the image, D entries of h, K directions, B faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.embedded import Bench, held_out
from lib.direction import Direction, stored
from lib.discovery.jacobian import Jacobian, h_jacobian
from lib.discovery.jive import jive
from lib.discovery.joint_basis import JointBasis
from lib.discovery.localised import local_directions
from lib.discovery.null_space import without
from lib.discovery.pca import components, moments
from lib.discovery.signs import brightness, fixed_sign
from lib.discovery.subspace import top_directions
from lib.records import Segmented

REGIONS = ("eyes", "brows", "mouth")
BLOCKS = (*REGIONS, "hair")
"""JIVE's blocks, with the rest of the image as one more."""
FACELESS = ("random", "pca")
"""Methods that do not look at the face."""

DIRECTIONS = 3
TOLERANCE = 0.1
ROUNDS = 30
TRADE_OFF = 0.1
LOCALISED_ROUNDS = 11
"""Nine products a round: at most 99 forward and 99 reverse ones for three regions."""
FACTOR_RANK = 20
FACTOR_TOLERANCE = 0.3
FACTOR_ROUNDS = 24
JOINT_RANK, INDIVIDUAL_RANK = 5, 5
NULL_RANK = 24
OTHERS_SEED, OTHERS = 777, 32
"""The faces whose h the principal component is of."""

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """The leading direction of every region by one method, and the products it took."""

    V_RD: Rows
    """Unit rows, in the order of REGIONS."""
    jvp_count: int = 0
    vjp_count: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """The Jacobian of one face at one timestep."""

    jacobian: Jacobian
    masks_RN: Tensor
    """Of BLOCKS."""
    seed: int

    @property
    def wanted(self) -> Tensor:
        """The masks of REGIONS, (R, N)."""
        return self.masks_RN[: len(REGIONS)]

    @property
    def generator(self) -> torch.Generator:
        """The same start for every method."""
        return torch.Generator().manual_seed(self.seed)


def place(bench: Bench, face: Segmented, node: int) -> Place:
    """The face's Jacobian d P_t / d h at a node of the grid."""
    t = bench.grid.timestep(node)
    with torch.no_grad():
        point = bench.denoiser.encode(face.inverted.states_LYX[t][None], t)
    masks = {
        r.name: r.mask_HW.expand(point.x_BLYX.shape[1], -1, -1).flatten() for r in face.regions
    }
    return Place(
        h_jacobian(bench.denoiser, point, bench.grid.alphas[node], chunk=8),
        torch.stack([masks[name] for name in BLOCKS]),
        face.inverted.sample.seed,
    )


def principal(bench: Bench, node: int, count: int = OTHERS) -> Tensor:
    """The first principal component of h over other faces, (D,)."""
    t = bench.grid.timestep(node)
    faces, _ = held_out(count, OTHERS_SEED)
    inverted = bench.inverted(faces, last=node, keep=[node], refinements=2)
    with torch.no_grad():
        h_BCYX = torch.cat(
            [bench.denoiser.encode(i.states_LYX[t][None], t).h_BCYX for i in inverted]
        )
    V_KD, _ = components(moments(h_BCYX.flatten(1), count), 1)
    return V_KD[0].float()


def random(at: Place) -> tuple[Found]:
    """Gaussian directions."""
    generator = torch.Generator().manual_seed(at.seed + 1)
    noise_RD = torch.randn(len(REGIONS), at.jacobian.domain, generator=generator)
    return (Found(torch.nn.functional.normalize(noise_RD, dim=1).numpy()),)


def jacobian(at: Place) -> tuple[Found]:
    """Top right singular directions of the region-masked Jacobian: what the others are held to."""
    found = top_directions(
        at.jacobian,
        at.wanted,
        [DIRECTIONS] * len(REGIONS),
        tolerance=TOLERANCE,
        max_rounds=ROUNDS,
        generator=at.generator,
    )
    return (_brightening(at, found.basis, [s.V_KD[0] for s in found.spectra]),)


def localised(at: Place) -> tuple[Found]:
    """The generalised eigenproblem of a region against the rest of the image."""
    found = local_directions(
        at.jacobian,
        at.wanted,
        [DIRECTIONS] * len(REGIONS),
        trade_off=TRADE_OFF,
        tolerance=TOLERANCE,
        max_rounds=LOCALISED_ROUNDS,
        generator=at.generator,
    )
    return (_brightening(at, found.basis, [s.V_KD[0] for s in found.spectra]),)


def jive_and_null_space(at: Place) -> tuple[Found, Found]:
    """JIVE's first individual direction of each region, blocks of unit Frobenius norm; and the
    region's leading direction without the leading ones of the rest of the image.

    Both come from the joint basis of the factors of all blocks, which together are the image, so
    each would cost as many products alone.
    """
    rest_1N = 1 - at.masks_RN.amax(0, keepdim=True)
    masks_RN = torch.cat([at.masks_RN, rest_1N])
    found = top_directions(
        at.jacobian,
        masks_RN,
        [FACTOR_RANK] * len(masks_RN),
        tolerance=FACTOR_TOLERANCE,
        max_rounds=FACTOR_ROUNDS,
        generator=at.generator,
    )
    blocks = [s.S_K[:, None] * s.V_KD / s.S_K.norm() for s in found.spectra]
    parts = jive(blocks, JOINT_RANK, [INDIVIDUAL_RANK] * len(blocks), tolerance=1e-6)
    without_rest = []
    for spectrum, mask_N in zip(found.spectra, at.wanted, strict=False):
        _, W_QQ = torch.linalg.eigh(found.basis.gram(1 - mask_N))
        null_KD = W_QQ[:, -NULL_RANK:].T.float() @ found.basis.Q_QD
        without_rest.append(without(spectrum.V_KD[:1], null_KD)[0])
    return (
        _brightening(at, found.basis, [own[0].float() for own in parts.individual]),
        _brightening(at, found.basis, without_rest),
    )


METHODS: dict[tuple[str, ...], Callable[[Place], tuple[Found, ...]]] = {
    ("random",): random,
    ("jacobian",): jacobian,
    ("jive", "null_space"): jive_and_null_space,
    ("localised",): localised,
}
"""All that need no other faces, by the names of what they give."""


def discovered(at: Place, methods: Sequence[str]) -> dict[str, Found]:
    """Methods on one face, each with its own products counted."""
    results = {}
    for names, method in METHODS.items():
        if set(names) & set(methods):
            before = at.jacobian.jvp_count, at.jacobian.vjp_count
            found = method(at)
            jvps, vjps = at.jacobian.jvp_count - before[0], at.jacobian.vjp_count - before[1]
            for name, one in zip(names, found, strict=True):
                results[name] = Found(one.V_RD, jvps, vjps)
    return results


def as_direction(bench: Bench, node: int, method: str, region: str, v_D: Tensor) -> Direction:
    """What the editor takes."""
    t = bench.grid.timestep(node)
    vector_SCYX = stored(v_D.view(1, *bench.denoiser.h_shape), "float32")
    return Direction(
        vector_SCYX, "", "h", "after", bench.weights, (t,), method, {}, region, "", None, None,
        None, 0, 0.0, None, None, None, True, 0, 0, "", bench.h_norms[t],
    )  # fmt: skip


def _brightening(at: Place, basis: JointBasis, V: Sequence[Tensor]) -> Found:
    """Signs by the predicted change in the region, which the basis knows without a product."""
    rows = []
    for v_D, mask_N in zip(V, at.wanted, strict=False):
        u_N = mask_N * ((basis.Q_QD @ v_D) @ basis.JQ_QN)
        rows.append(fixed_sign(v_D, brightness(u_N)) * v_D)
    return Found(torch.stack(rows).float().numpy())
