"""The discover stage: directions for every region, found in the image itself or read from a
library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import Direction, content_id, stored
from lib.golub_kahan import Spectrum
from lib.grid import Grid
from lib.jacobian import Jacobian, h_jacobian
from lib.records import Discovered, Failure, Region, Sample, Segmented
from lib.signs import SIGN_RULE, brightness, fixed_sign
from lib.subspace import NotFiniteError, top_directions


class JacobianDiscoverer:
    """Top right singular directions of the region-masked Jacobian d P_t / d h at one timestep."""

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        node: int,
        directions: int,
        tolerance: float,
        max_rounds: int,
        chunk: int,
        model: str,
        h_layer: str,
        h_norms: Mapping[int, float],
        vector_dtype: str,
    ) -> None:
        self._denoiser = denoiser
        self._t = grid.timestep(node)
        self._alpha = grid.alphas[node]
        self._count = directions
        self._tolerance = tolerance
        self._max_rounds = max_rounds
        self._chunk = chunk
        self._model = model
        self._h_layer = h_layer
        self._h_norms = h_norms
        self._vector_dtype = vector_dtype

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects as `not_finite` or, where a region does not depend on h, `no_direction`."""
        for segmented in items:
            sample = segmented.inverted.sample
            x_BLYX = segmented.inverted.states_LYX[self._t][None]
            with torch.no_grad():
                point = self._denoiser.encode(x_BLYX, self._t)
            jacobian = h_jacobian(self._denoiser, point, self._alpha, chunk=self._chunk)
            masks_RN = torch.stack(
                [_flat_mask(r, self._denoiser.latent_shape) for r in segmented.regions]
            ).to(x_BLYX.device)
            try:
                spectra = top_directions(
                    jacobian,
                    masks_RN,
                    [self._count] * len(masks_RN),
                    tolerance=self._tolerance,
                    max_rounds=self._max_rounds,
                    generator=torch.Generator().manual_seed(sample.seed),
                ).spectra
            except NotFiniteError as error:
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "discover", "not_finite", str(error)))
                continue
            flat = [
                r.name for r, s in zip(segmented.regions, spectra, strict=True) if not len(s.S_K)
            ]
            if flat:
                where = (sample.shard, sample.index, sample.key)
                message = f"region {flat[0]}: the image there does not depend on h"
                reject(Failure(*where, "discover", "no_direction", message))
                continue
            found = tuple(
                self._direction(sample, region, spectrum, rank, jacobian)
                for region, spectrum in zip(segmented.regions, spectra, strict=True)
                for rank in range(len(spectrum.S_K))
            )
            yield Discovered(segmented, found, own=True)

    def _direction(
        self, sample: Sample, region: Region, spectrum: Spectrum, rank: int, jacobian: Jacobian
    ) -> Direction:
        sign = fixed_sign(spectrum.V_KD[rank], brightness(spectrum.U_KN[rank]))
        vector_CYX = (sign * spectrum.V_KD[rank]).view(self._denoiser.h_shape).cpu()
        vector_SCYX = stored(vector_CYX[None], self._vector_dtype)
        return Direction(
            vector_SCYX=vector_SCYX,
            id=content_id(vector_SCYX, "h", self._h_layer, self._model, (self._t,)),
            space="h",
            h_layer=self._h_layer,
            model=self._model,
            timesteps=(self._t,),
            method="jacobian",
            parameters={
                "directions": self._count,
                "tolerance": self._tolerance,
                "max_rounds": self._max_rounds,
            },
            region=region.name,
            mask_sha256=region.mask_sha256,
            shard=sample.shard,
            index=sample.index,
            key=sample.key,
            rank=rank,
            singular_value=float(spectrum.S_K[rank]),
            gap=float(spectrum.gap_K[rank]),
            residual=float(spectrum.residual_K[rank]),
            angle=spectrum.angle,
            converged=spectrum.converged,
            jvp_count=jacobian.jvp_count,
            vjp_count=jacobian.vjp_count,
            sign_rule=SIGN_RULE,
            h_norm=self._h_norms[self._t],
        )


class LibraryDiscoverer:
    """Gives every image the same directions, read once from a library, matched to its regions by
    name.
    """

    def __init__(self, directions: tuple[Direction, ...]) -> None:
        self._directions = directions

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects nothing: whether the library fits the model was checked when it was read."""
        for segmented in items:
            yield Discovered(segmented, self._directions, own=False)


def _flat_mask(region: Region, latent_shape: tuple[int, int, int]) -> Tensor:
    return region.mask_HW.expand(latent_shape[0], -1, -1).flatten()
