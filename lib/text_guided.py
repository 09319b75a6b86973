"""Directions towards a text, one reverse-mode product for each region (T-LOCO, Chen et al. 2024).

Where the image should change is d: the gradient of a text-image model, or the difference of two
predictions. v = J^T (mask * d) is the shift of h that makes the region move along d fastest.

Shape suffixes: R regions, D entries of h, N entries of the image, K vectors of a null space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.golub_kahan import Spectrum
from lib.jacobian import LinearMap
from lib.null_space import without
from lib.region_problem import RegionProblem, Search
from lib.subspace import top_directions
from lib.text_image import TextImage

TOWARDS_TARGET = "towards_target"
"""Sign rule: + moves the predicted image towards the target text. No other rule is needed."""


@dataclass(frozen=True, slots=True)
class TextGuided:
    """One unit direction a region."""

    V_RD: Tensor
    """Unit rows."""
    gain_R: tuple[float, ...]
    """|J^T u| for the unit u along mask * d: at most the region's first singular value."""
    kept_R: tuple[float, ...]
    """Share of |J^T u| that the null-space projection left; 1 without one."""


def text_guided(
    jacobian: LinearMap, d_N: Tensor, mask_RN: Tensor, null_RKD: Sequence[Tensor] = ()
) -> TextGuided:
    """v_r = J^T (mask_r * d) / |.|, by one vjp for each region.

    `null_RKD` holds, for each region, rows that the direction must be orthogonal to (the strongest
    directions of the region's complement; Chen et al. 2024, alg. 1).

    Raises:
        ValueError: d is zero or not finite in a region, the model does not answer there, nothing
            is left after the projection, or the number of null spaces is not that of the regions.
    """
    if null_RKD and len(null_RKD) != len(mask_RN):
        raise ValueError(f"expected {len(mask_RN)} null spaces, one a region, got {len(null_RKD)}")
    masked_RN = mask_RN.to(d_N) * d_N
    size_R = masked_RN.double().norm(dim=1)
    for region, size in enumerate(size_R.tolist()):
        if not 0 < size < float("inf"):
            raise ValueError(
                f"text guidance: the gradient is {'zero' if size == 0 else 'not finite'} in region"
                f" {region}, so the texts ask for no change there"
            )
    raw_RD = jacobian.vjp((masked_RN.double() / size_R[:, None]).to(d_N.dtype)).double()
    gain_R = raw_RD.norm(dim=1)
    for region, gain in enumerate(gain_R.tolist()):
        if not 0 < gain < float("inf"):
            raise ValueError(
                f"text guidance: J^T d is {'zero' if gain == 0 else 'not finite'} in region"
                f" {region}: the image does not answer to h there"
            )
    V_RD = raw_RD / gain_R[:, None]
    if null_RKD:
        pairs = zip(V_RD, null_RKD, strict=True)
        free_RD = torch.cat([without(v_D[None], null_KD) for v_D, null_KD in pairs])
    else:
        free_RD = V_RD
    return TextGuided(
        V_RD=free_RD.to(d_N.dtype),
        gain_R=tuple(gain_R.tolist()),
        kept_R=tuple((free_RD * V_RD).sum(dim=1).tolist()),
    )


def text_directions(
    problem: RegionProblem,
    search: Search,
    text_image: TextImage,
    texts: tuple[str, str],
    null_rank: int,
) -> tuple[Spectrum, ...]:
    """One direction a region, from the first of `texts` towards the second, for a model whose
    latents are pixels; S is |J^T u| for the unit change u that the texts ask for.

    Raises:
        ValueError: the texts ask for no change in a region, or the image does not answer there.
        NotFiniteError: a product is NaN or infinite.
    """
    source, target = texts
    d_N = text_image.gradient(problem.predicted_CHW[None], source, target).flatten()
    null_RKD: list[Tensor] = []
    if null_rank:
        rest = top_directions(
            problem.jacobian,
            1 - problem.masks_RN,
            [null_rank] * len(problem.masks_RN),
            tolerance=0.5,
            max_rounds=search.max_rounds + 2 * null_rank,
            generator=problem.generator(),
        )
        null_RKD = [s.V_KD for s in rest.spectra]
    found = text_guided(problem.jacobian, d_N, problem.masks_RN, null_RKD)
    answers = []
    for v_D, gain, mask_N in zip(found.V_RD, found.gain_R, problem.masks_RN, strict=True):
        zero_1 = v_D.new_zeros(1)
        u_N = torch.nn.functional.normalize(mask_N * d_N, dim=0)
        answers.append(
            Spectrum(v_D[None], v_D.new_tensor([gain]), u_N[None], zero_1, zero_1, 0.0, True)
        )
    return tuple(answers)
