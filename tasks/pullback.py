"""The pullback basis of an image: directions of x_t that move h most, and the shifts of h they make
(Park et al. 2023). Not tied to a region.

Shape suffixes: K directions, D entries of x_t, E of h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import Direction, content_id, stored, vector_at
from lib.discovery.golub_kahan import Spectrum
from lib.discovery.grassmann import transported
from lib.discovery.jacobian import Jacobian, pullback
from lib.discovery.region_problem import Search
from lib.discovery.signs import LARGEST_ENTRY, fixed_sign
from lib.discovery.subspace import AdjointError, NotFiniteError, top_directions
from lib.records import Discovered, Failure, Sample, Segmented
from lib.region_names import WHOLE
from lib.regions import make_region
from lib.sampling.grid import Grid

TRANSPORTED = "transported"
"""Sign rule: + moves h the way + of the direction it was carried from does."""

_FAINT = 0.01
"""Share of a carried direction below which the errors of the basis decide."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is a direction's own."""

    v_D: Tensor
    singular_value: float
    """|J v|, for a left singular vector of the right one that belongs to it."""
    gap: float | None
    residual: float | None
    sign_rule: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    label: str | None = None


class PullbackDiscoverer:
    """Right (space x) or left (space h) singular directions of d h / d x_t at one timestep.

    With `carried` directions of h from other images, these are transported instead: v' = V (U^T
    u), the direction of x_t that moves h as they do as far as this image's basis can. How far that
    is, |U^T u| of the unit shift u, is recorded as the parameter `carried`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        node: int,
        search: Search,
        chunk: int,
        space: str,
        carried: Sequence[Direction],
        parameters: Mapping[str, Any],
        model: str,
        h_layer: str,
        h_norms: Mapping[int, float],
        vector_dtype: str,
    ) -> None:
        self._denoiser = denoiser
        self._t = grid.timestep(node)
        self._search = search
        self._chunk = chunk
        self._space = space
        self._carried = tuple(carried)
        self._parameters = parameters
        self._model = model
        self._h_layer = h_layer
        self._h_norm = h_norms[self._t] if space == "h" else sqrt(prod(denoiser.latent_shape))
        self._vector_dtype = vector_dtype
        size = denoiser.image_size
        self._mask_sha256 = make_region(WHOLE, torch.ones(size, size)).mask_sha256

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects as `not_finite`, as `inexact_products` where forward and reverse products
        disagree, or as `no_direction` where h does not depend on x_t or a carried direction lies
        outside this image's basis.
        """
        for segmented in items:
            sample = segmented.inverted.sample
            where = (sample.shard, sample.index, sample.key)
            try:
                found = self._found(sample, segmented.inverted.states_LYX[self._t][None])
            except NotFiniteError as error:
                reject(Failure(*where, "discover", "not_finite", str(error)))
                continue
            except AdjointError as error:
                reject(Failure(*where, "discover", "inexact_products", f"pullback: {error}"))
                continue
            except ValueError as error:
                reject(Failure(*where, "discover", "no_direction", f"pullback: {error}"))
                continue
            yield Discovered(segmented, tuple(found), own=True)

    def _found(self, sample: Sample, x_BLYX: Tensor) -> list[Direction]:
        jacobian = pullback(self._denoiser, x_BLYX, self._t, chunk=self._chunk)
        whole_1E = torch.ones(1, prod(self._denoiser.h_shape), device=x_BLYX.device)
        (spectrum,) = top_directions(
            jacobian,
            whole_1E,
            [self._search.count],
            tolerance=self._search.tolerance,
            max_rounds=self._search.max_rounds,
            generator=torch.Generator().manual_seed(sample.seed),
        ).spectra
        if not len(spectrum.S_K):
            raise ValueError("h does not depend on x_t")
        basis_KE, V_KD = spectrum.U_KN.cpu(), spectrum.V_KD.cpu()
        if self._carried:
            found = [
                self._transported(u, basis_KE, V_KD, spectrum.S_K.cpu()) for u in self._carried
            ]
        else:
            rows_KD = V_KD if self._space == "x" else basis_KE
            found = [
                _Found(
                    v_D=fixed_sign(v_D) * v_D,
                    singular_value=float(spectrum.S_K[k]),
                    gap=float(spectrum.gap_K[k]),
                    residual=float(spectrum.residual_K[k]),
                    sign_rule=LARGEST_ENTRY,
                )
                for k, v_D in enumerate(rows_KD)
            ]
        return [
            self._direction(sample, one, rank, spectrum, jacobian) for rank, one in enumerate(found)
        ]

    def _transported(
        self, parent: Direction, basis_KE: Tensor, V_KD: Tensor, S_K: Tensor
    ) -> _Found:
        u_E = vector_at(parent, self._t).flatten()
        share = float((basis_KE.double() @ u_E.double()).norm())
        if share <= _FAINT:
            raise ValueError(
                f"{share:.1e} of direction {parent.id} lies in the {len(basis_KE)} directions of"
                f" the image's basis; expected more than {_FAINT}; take a larger basis"
            )
        v_D = transported(u_E, basis_KE, V_KD)
        return _Found(
            v_D=v_D,
            singular_value=float((S_K * (V_KD @ v_D)).norm()),
            gap=None,
            residual=None,
            sign_rule=TRANSPORTED,
            parameters={"carried": share},
            parents=(parent.id,),
            label=parent.label,
        )

    def _direction(
        self, sample: Sample, found: _Found, rank: int, spectrum: Spectrum, jacobian: Jacobian
    ) -> Direction:
        shape = self._denoiser.h_shape if self._space == "h" else self._denoiser.latent_shape
        vector_SCYX = stored(found.v_D.view(1, *shape), self._vector_dtype)
        return Direction(
            vector_SCYX=vector_SCYX,
            id=content_id(vector_SCYX, self._space, self._h_layer, self._model, (self._t,)),
            space=self._space,
            h_layer=self._h_layer,
            model=self._model,
            timesteps=(self._t,),
            method="pullback",
            parameters={**self._parameters, **found.parameters},
            region=WHOLE,
            mask_sha256=self._mask_sha256,
            shard=sample.shard,
            index=sample.index,
            key=sample.key,
            rank=rank,
            singular_value=found.singular_value,
            gap=found.gap,
            residual=found.residual,
            angle=spectrum.angle,
            converged=spectrum.converged,
            jvp_count=jacobian.jvp_count,
            vjp_count=jacobian.vjp_count,
            sign_rule=found.sign_rule,
            h_norm=self._h_norm,
            parents=found.parents,
            label=found.label,
        )
