"""What the directions of many images have in common as subspaces: the leading eigenvectors of the
mean of their projectors, or the basis of their Fréchet mean (Park et al. 2023).

Shape suffixes: N directions, D entries of h, Q orthonormal rows of all images, K eigenvectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, radians

import torch
from torch import Tensor

from lib.discovery.grassmann import frechet_mean

_EXACT_ROWS = 1536
"""Up to so many rows the eigenvectors come from their Gram matrix, beyond from block iteration."""
_MORE, _MAX_ITERATIONS, _TOLERANCE = 10, 200, 1e-6
_SEED = 20_240_601


@dataclass(frozen=True, slots=True)
class SharedDirection:
    """A direction of what the images' spans share."""

    vector_D: Tensor
    """Unit norm, float32, on the side of the first of `nearest`."""
    share: float
    """The mean squared cosine to the images' spans, in [0, 1]; its eigenvalue."""
    nearest: tuple[int, ...]
    """The row nearest to it of every image whose span is within the angle, ascending."""
    spread: float
    """Mean sine of the angle to those spans."""


def shared_directions(
    v_ND: Tensor, images: Sequence[int], count: int, angle_degrees: float
) -> tuple[SharedDirection, ...]:
    """At most `count` leading eigenvectors of mean_i P_i, where P_i projects on the span of image
    i's rows; those that no image's span is near are left out.

    `v_ND` float32, unit rows; `images` numbers the image of each row. The mean projector minimises
    the sum of squared chordal distances to the images' subspaces.
    """
    rows_of = _rows_of(images)
    spans = {image: _orthonormal(v_ND[rows]) for image, rows in rows_of.items()}
    stacked_QD = torch.cat(list(spans.values()))
    v_KD = _leading(stacked_QD, min(count, len(stacked_QD)))
    return _near(v_KD, v_ND, rows_of, spans, angle_degrees)


def mean_directions(
    v_ND: Tensor, images: Sequence[int], angle_degrees: float
) -> tuple[SharedDirection, ...]:
    """The basis of the Fréchet mean of the images' spans, what they agree on most first; rows that
    no image's span is near are left out.

    Only images whose span has the largest dimension enter: the mean is of subspaces of one
    dimension. It minimises the sum of squared geodesic distances. Arguments as in
    `shared_directions`.
    """
    rows_of = _rows_of(images)
    spans = {image: _orthonormal(v_ND[rows]) for image, rows in rows_of.items()}
    dimension = max(len(span_KD) for span_KD in spans.values())
    whole = {image: span for image, span in spans.items() if len(span) == dimension}
    v_KD = frechet_mean(list(whole.values()), tolerance=_TOLERANCE).basis_KD.float()
    return _near(v_KD, v_ND, {i: rows_of[i] for i in whole}, whole, angle_degrees)


def _rows_of(images: Sequence[int]) -> dict[int, list[int]]:
    rows_of: dict[int, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    return rows_of


def _near(
    v_KD: Tensor,
    v_ND: Tensor,
    rows_of: Mapping[int, list[int]],
    spans: Mapping[int, Tensor],
    angle_degrees: float,
) -> tuple[SharedDirection, ...]:
    """The rows of `v_KD` that some image's span is within the angle of."""
    least = cos(radians(angle_degrees))
    found = []
    for v_D in v_KD:
        share, nearest, sines = 0.0, [], []
        for image, rows in rows_of.items():
            squared = float((spans[image] @ v_D).double().square().sum().clamp(max=1))
            share += squared
            if squared >= least**2:
                nearest.append(rows[int((v_ND[rows] @ v_D).abs().argmax())])
                sines.append((1 - squared) ** 0.5)
        if nearest:
            nearest.sort()
            side = -1.0 if float(v_ND[nearest[0]] @ v_D) < 0 else 1.0
            found.append(
                SharedDirection(
                    side * v_D, share / len(spans), tuple(nearest), sum(sines) / len(sines)
                )
            )
    return tuple(found)


def _orthonormal(v_ND: Tensor) -> Tensor:
    """Orthonormal rows that span those of `v_ND`; rows that add nothing are dropped."""
    _, s_K, V_KD = torch.linalg.svd(v_ND.double(), full_matrices=False)
    kept_KD: Tensor = V_KD[s_K > 1e-4 * s_K[0]]
    return kept_KD.float()


def _leading(q_QD: Tensor, count: int) -> Tensor:
    """The `count` leading right singular vectors of `q_QD`, rows, float32."""
    if len(q_QD) <= _EXACT_ROWS:
        double_QD = q_QD.double()
        _, U_QQ = torch.linalg.eigh(double_QD @ double_QD.T)
        v_KD: Tensor = U_QQ.flip(1)[:, :count].T @ double_QD
        return torch.nn.functional.normalize(v_KD, dim=1).float()
    generator = torch.Generator().manual_seed(_SEED)
    width = min(count + _MORE, *q_QD.shape)
    basis_DW = torch.linalg.qr(torch.randn(q_QD.shape[1], width, generator=generator))[0]
    for _ in range(_MAX_ITERATIONS):
        image_DW = q_QD.T @ (q_QD @ basis_DW)
        residual_DW = image_DW - basis_DW @ (basis_DW.T @ image_DW)
        small = float(residual_DW[:, :count].norm()) <= _TOLERANCE * float(image_DW.norm())
        basis_DW = _ritz(q_QD, torch.linalg.qr(image_DW)[0])
        if small:
            break
    leading_KD: Tensor = basis_DW[:, :count].T
    return leading_KD.contiguous()


def _ritz(q_QD: Tensor, basis_DW: Tensor) -> Tensor:
    """The basis turned to its Ritz vectors, the strongest first."""
    projected_QW = (q_QD @ basis_DW).double()
    _, rotation_WW = torch.linalg.eigh(projected_QW.T @ projected_QW)
    turned_DW: Tensor = basis_DW @ rotation_WW.flip(1).float()
    return turned_DW
