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

from lib.discovery.golub_kahan import Spectrum
from lib.discovery.jacobian import LinearMap
from lib.discovery.null_space import complements, without
from lib.discovery.region_problem import RegionProblem
from lib.discovery.subspace import NotFiniteError, finite
from lib.models.text_image import TextImage

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
    jacobian: LinearMap,
    d_N: Tensor,
    mask_RN: Tensor,
    null_RKD: Sequence[Tensor] = (),
    *,
    names: Sequence[str] = (),
) -> TextGuided:
    """v_r = J^T (mask_r * d) / |.|, by one vjp for each region.

    `null_RKD` holds, for each region, rows that the direction must be orthogonal to (the strongest
    directions of the region's complement; Chen et al. 2024, alg. 1). Errors call the regions by
    `names`, else by their number.

    Raises:
        ValueError: d is zero or not finite in a region, the model does not answer there, nothing
            is left after the projection, or the number of null spaces is not that of the regions.
        NotFiniteError: J^T d is NaN or infinite.
    """
    called = names or [str(region) for region in range(len(mask_RN))]
    if null_RKD and len(null_RKD) != len(mask_RN):
        raise ValueError(f"expected {len(mask_RN)} null spaces, one a region, got {len(null_RKD)}")
    masked_RN = mask_RN.to(d_N) * d_N
    size_R = masked_RN.double().norm(dim=1)
    for region, size in zip(called, size_R.tolist(), strict=True):
        if not 0 < size < float("inf"):
            raise ValueError(
                f"text guidance: the gradient is {'zero' if size == 0 else 'not finite'} in region"
                f" {region}, so the texts ask for no change there"
            )
    raw_RD = finite(jacobian.vjp((masked_RN.double() / size_R[:, None]).to(d_N.dtype))).double()
    gain_R = raw_RD.norm(dim=1)
    for region, gain in zip(called, gain_R.tolist(), strict=True):
        if not gain > 0:
            raise ValueError(
                f"text guidance: J^T d is zero in region {region}: the image does not answer to h"
                " there"
            )
    V_RD = raw_RD / gain_R[:, None]
    free_RD = V_RD.clone()
    for r, null_KD in enumerate(null_RKD):
        try:
            free_RD[r] = without(V_RD[r, None], null_KD)[0]
        except ValueError as error:
            raise ValueError(f"text guidance: region {called[r]}: {error}") from error
    return TextGuided(
        V_RD=free_RD.to(d_N.dtype),
        gain_R=tuple(gain_R.tolist()),
        kept_R=tuple((free_RD * V_RD).sum(dim=1).tolist()),
    )


def text_directions(
    problem: RegionProblem,
    *,
    text_image: TextImage,
    texts: tuple[str, str],
    null_rank: int,
    max_rounds: int,
) -> tuple[Spectrum, ...]:
    """One direction a region, from the first of `texts` towards the second; S is <u, J v> for the
    unit change u that the texts ask for, of the latent where the model works on latents.

    Without the `null_rank` strongest directions of the rest of the image, if that is not 0.

    Raises:
        ValueError: the texts ask for no change in a region, the image does not answer there, or
            nothing is left beside the rest of the image.
        NotFiniteError: the prediction or a product is NaN or infinite.
        AdjointError: forward and reverse products disagree.
    """
    if not bool(torch.isfinite(problem.predicted_CHW).all()):
        raise NotFiniteError("the network predicted NaN or infinity")
    d_N = problem.to_latent(text_image.gradient(problem.predicted_CHW[None], *texts))[0]
    null_RKD: list[Tensor] = []
    if null_rank:
        rest = complements(problem, null_rank, max_rounds, problem.generator())
        null_RKD = [spectrum.V_KD for spectrum in rest.spectra]
    found = text_guided(problem.jacobian, d_N, problem.masks_RN, null_RKD, names=problem.names)
    answers = []
    for r, v_D in enumerate(found.V_RD):
        zero_1, S_1 = v_D.new_zeros(1), v_D.new_tensor([found.gain_R[r] * found.kept_R[r]])
        u_N = torch.nn.functional.normalize(problem.masks_RN[r] * d_N, dim=0)
        answers.append(Spectrum(v_D[None], S_1, u_N[None], zero_1, zero_1, 0.0, True))
    return tuple(answers)
