"""Directions towards a reference image: for every region the shift of h that makes the region look
as it does in the reference, and leaves the rest of the image as it is.

Shape suffixes: R regions, Q basis columns, T trials, D entries of h, N of the latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import Direction, content_id, stored
from lib.directions.direction_reach import parts_of_h
from lib.discovery.jacobian import Jacobian, Products, h_jacobian
from lib.discovery.subspace import AdjointError, NotFiniteError, finite
from lib.editing.edit_decoding import EditDecoder
from lib.editing.edit_shifts import EditShifts
from lib.editing.x_guidance import Along
from lib.files.image_files import ImageError
from lib.records import Discovered, Failure, Region, Sample, Segmented
from lib.reference.images import Reference, ReferenceOf, refuse_same
from lib.reference.matching import Approach, Matched, Weights, matched
from lib.reference.target_basis import target_basis
from lib.regions import flat_mask
from lib.sampling.sampler import Sampler
from lib.shift import Shift

TOWARDS_REFERENCE = "towards_reference"
"""Sign rule: + moves the region towards the reference."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One image at the timestep of the Jacobian, with its unedited decode and its reference."""

    segmented: Segmented
    reference: Reference
    jacobian: Jacobian
    plain_N: Tensor
    target_N: Tensor
    """Reference minus reconstruction."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One region's direction."""

    v_D: Tensor
    response: float
    """|M J v|."""
    matched: Matched


class ReferenceDiscoverer:
    """One direction a region from the image towards its reference, with the strength that meets it.

    The reference need not be inverted: what is wanted is the difference between it and the
    reconstruction, inside the region. A Krylov basis of that difference (`lib.reference`) is found
    at one timestep; the combination in it by finite edits, decoded as the run decodes its own. The
    direction is of unit norm; a strength of 1 meets the reference as well as can be
    (`unit_strength`).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        node: int,
        shifts: EditShifts,
        sampler: Sampler,
        reference_of: ReferenceOf,
        approach: Approach,
        parameters: Mapping[str, Any],
        model: str,
        h_layer: str,
        vector_dtype: str,
    ) -> None:
        self._denoiser = denoiser
        self._node = node
        self._t = shifts.grid.timestep(node)
        self._alpha = shifts.grid.alphas[node]
        self._shifts = shifts
        self._decoder = EditDecoder(
            denoiser, sampler, shifts, x_edit=Along(), batch_size=approach.chunk
        )
        self._reference_of = reference_of
        self._approach = approach
        self._parameters = parameters
        self._model = model
        self._h_layer = h_layer
        self._h_norm = shifts.unit[self._t]
        self._vector_dtype = vector_dtype
        self._evaluations = 0

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects as `missing_reference` or what the image decoder says of it, as `not_finite`, as
        `inexact_products`, or as `no_direction` where the reference is the same in a region or no
        edit brings the image nearer to it.
        """
        for segmented in items:
            sample = segmented.inverted.sample
            where = (sample.shard, sample.index, sample.key, "discover")
            self._evaluations = 0
            try:
                directions = self._directions(segmented, self._reference_of(sample))
            except ImageError as error:
                reject(Failure(*where, error.kind, f"reference: {error}"))
            except NotFiniteError as error:
                reject(Failure(*where, "not_finite", str(error)))
            except AdjointError as error:
                reject(Failure(*where, "inexact_products", f"reference: {error}"))
            except ValueError as error:
                reject(Failure(*where, "no_direction", f"reference: {error}"))
            else:
                spent = self._evaluations * self._denoiser.passes
                yield Discovered(segmented, directions, own=True, evaluations=spent)

    def _directions(self, segmented: Segmented, reference: Reference) -> tuple[Direction, ...]:
        sample = segmented.inverted.sample
        for region in segmented.regions:
            refuse_same(sample, reference, region)
        try:
            return self._directions_by(segmented, reference, self._approach.products)
        except AdjointError:
            if self._approach.products != "linearised":
                raise
            return self._directions_by(segmented, reference, "forward")

    def _directions_by(
        self, segmented: Segmented, reference: Reference, products: Products
    ) -> tuple[Direction, ...]:
        with torch.no_grad():
            x_BLYX = segmented.inverted.states_LYX[self._t][None]
            point = self._denoiser.encode(x_BLYX, self._t)
            wanted_N = self._denoiser.latent(reference.image_CHW[None]).flatten()
        plain_N = self._decoded(segmented, [])[0]
        jacobian = h_jacobian(
            self._denoiser, point, self._alpha, chunk=self._approach.chunk, products=products
        )
        self._evaluations += 1
        place = _Place(segmented, reference, jacobian, plain_N, wanted_N - plain_N)
        found = [self._found(place, region) for region in segmented.regions]
        return tuple(
            self._direction(place, region, one)
            for region, one in zip(segmented.regions, found, strict=True)
        )

    def _found(self, place: _Place, region: Region) -> _Found:
        mask_N = flat_mask(region, self._denoiser.latent_shape).to(place.target_N)
        weights = Weights(place.target_N, mask_N, self._approach.outside)
        basis = target_basis(
            place.jacobian, weights.weight_N, mask_N * place.target_N, self._approach.basis
        )
        if not len(basis.Q_QD):
            raise ValueError(f"region {region.name}: the image there does not depend on h")
        probe = self._probe(place.segmented.inverted.sample, region)
        reach = (self._shifts.window, self._shifts.injection, self._shifts.reach)
        steps = parts_of_h(probe, self._shifts.grid, *reach)
        weight = sum(part for parts in steps.values() for part, _ in parts)

        def apply(c_TQ: Tensor) -> Tensor:
            v_TD = (c_TQ.to(basis.Q_QD) @ basis.Q_QD).cpu()
            edits = [
                Shift(replace(probe, vector_SCYX=v.view(probe.vector_SCYX.shape)), 1.0)
                for v in v_TD
            ]
            return self._decoded(place.segmented, edits)[1:] - place.plain_N

        try:
            best = matched(
                basis.JQ_QN,
                weights,
                apply,
                scale=weight * self._h_norm,
                rounds=self._approach.rounds,
            )
        except ValueError as error:
            raise ValueError(f"region {region.name}: {error}") from error
        z_Q = (best.c_Q / best.c_Q.norm()).to(basis.Q_QD)
        return _Found(z_Q @ basis.Q_QD, float((mask_N * (z_Q @ basis.JQ_QN)).norm()), best)

    def _decoded(self, segmented: Segmented, edits: list[Shift]) -> Tensor:
        """Clean latents (1 + T, N), the reconstruction first."""
        decoded = self._decoder(segmented.inverted.latent, edits)
        self._evaluations += decoded.evaluations
        return finite(decoded.x_BLYX.flatten(1))

    def _probe(self, sample: Sample, region: Region) -> Direction:
        """What is shifted while a direction is looked for: like the direction, but for the vector
        and what is not known yet.
        """
        zero_SCYX = torch.zeros(1, *self._denoiser.h_shape)
        return Direction(
            vector_SCYX=zero_SCYX,
            id="",
            space="h",
            h_layer=self._h_layer,
            model=self._model,
            timesteps=(self._t,),
            method="reference",
            parameters=self._parameters,
            region=region.name,
            mask_sha256=region.mask_sha256,
            shard=sample.shard,
            index=sample.index,
            key=sample.key,
            rank=0,
            singular_value=0.0,
            gap=None,
            residual=None,
            angle=None,
            converged=False,
            jvp_count=0,
            vjp_count=0,
            sign_rule=TOWARDS_REFERENCE,
            h_norm=self._h_norm,
        )

    def _direction(self, place: _Place, region: Region, found: _Found) -> Direction:
        vector_SCYX = stored(found.v_D.cpu().view(1, *self._denoiser.h_shape), self._vector_dtype)
        return replace(
            self._probe(place.segmented.inverted.sample, region),
            vector_SCYX=vector_SCYX,
            id=content_id(vector_SCYX, "h", self._h_layer, self._model, (self._t,)),
            parameters={
                **self._parameters,
                "products": place.jacobian.products,
                "reference_sha256": place.reference.sha256,
                "explained": found.matched.explained,
                "explained_linearly": found.matched.linear,
            },
            singular_value=found.response,
            residual=found.matched.gain,
            converged=found.matched.converged,
            jvp_count=place.jacobian.jvp_count,
            vjp_count=place.jacobian.vjp_count,
            unit_strength=float(found.matched.c_Q.norm().float()),  # as it will be read back
        )
