"""The discover stage: directions for every region, found in the image itself.

Shape suffixes: R regions, K directions, S timesteps, D entries of h or x_t, N of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import Direction, content_id, stored
from lib.discovery.decoder_gradient import brightening, through_decoder
from lib.discovery.golub_kahan import Spectrum
from lib.discovery.jacobian import Jacobian, Products, h_jacobian, x_jacobian
from lib.discovery.region_problem import Method, RegionProblem
from lib.discovery.signs import SIGN_RULE, aligned_steps, fixed_sign, matched_order
from lib.discovery.subspace import AdjointError, NotFiniteError
from lib.records import Discovered, Failure, Region, Sample, Segmented
from lib.regions import flat_mask, same_regions
from lib.sampling.ddim import predicted_x0
from lib.sampling.grid import Grid


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method with what it needs and what it is recorded as."""

    name: str
    method: Method
    parameters: Mapping[str, Any]
    space: str = "h"
    """h, or x for directions of x_t."""
    products: Products = "linearised"
    chunk: int = 8
    contrasts: bool = False
    """Whether it compares regions, so that two equal ones make no sense."""
    sign_rule: str = SIGN_RULE
    """SIGN_RULE, or a rule that the method has applied itself."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all directions of a run carry."""

    model: str
    """SHA-256 of the weights."""
    h_layer: str
    h_norms: Mapping[int, float]
    """Mean norm of h by timestep."""
    vector_dtype: str


@dataclass(frozen=True, slots=True)
class _Step:
    """What was found at one timestep."""

    t: int
    spectra: tuple[Spectrum, ...]
    products: Products
    """What was used, which may differ from what was asked for."""
    jvp_count: int
    vjp_count: int
    brighter: Callable[[int, Tensor], float]
    """(region, change of the latent) -> the reference of SIGN_RULE."""


class JacobianDiscoverer:
    """Directions of every region from the Jacobian of the image itself, by any method on it.

    With several timesteps a direction has a step for each: found from the highest down, each
    search started from the one above by methods that can, matched and signed to it. An image whose
    linearised products turn out to be wrong (a network with nonlinear functions that are no
    modules) is done again with forward-mode differentiation, which every direction of it records.
    """

    def __init__(
        self, denoiser: Denoiser, grid: Grid, *, nodes: Sequence[int], recipe: Recipe, stamp: Stamp
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._nodes = sorted(nodes, reverse=True)
        self._recipe = recipe
        self._stamp = stamp
        self._shape = denoiser.h_shape if recipe.space == "h" else denoiser.latent_shape

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects as `not_finite`, as `inexact_products` where forward and reverse products
        disagree, as `identical_regions`, or as `no_direction` where a region does not respond or
        has nothing of its own.
        """
        for segmented in items:
            sample = segmented.inverted.sample

            def refuse(kind: str, message: str, sample: Sample = sample) -> None:
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "discover", kind, message))

            twins = same_regions(segmented.regions) if self._recipe.contrasts else None
            if twins is not None:
                first, second = twins
                refuse("identical_regions", f"regions {first} and {second} have the same mask")
                continue
            try:
                steps = self._steps(segmented)
            except NotFiniteError as error:
                refuse("not_finite", str(error))
                continue
            except AdjointError as error:
                refuse("inexact_products", f"{self._recipe.name}: {error}")
                continue
            except ValueError as error:  # a method finds no direction in this image
                refuse("no_direction", f"{self._recipe.name}: {error}")
                continue
            silent = [
                region.name
                for r, region in enumerate(segmented.regions)
                if not all(len(step.spectra[r].S_K) for step in steps)
            ]
            if silent:
                space = "h" if self._recipe.space == "h" else "x_t"
                message = f"region {silent[0]}: the image there does not depend on {space}"
                refuse("no_direction", message)
                continue
            found = [
                direction
                for r, region in enumerate(segmented.regions)
                for direction in self._directions(sample, region, steps, r)
            ]
            yield Discovered(segmented, tuple(found), own=True)

    def _steps(self, segmented: Segmented) -> list[_Step]:
        """The answers at every timestep, the highest first."""
        try:
            return self._steps_by(segmented, self._recipe.products)
        except AdjointError:
            if self._recipe.products != "linearised" or self._recipe.space != "h":
                raise
            return self._steps_by(segmented, "forward")

    def _steps_by(self, segmented: Segmented, products: Products) -> list[_Step]:
        masks = [flat_mask(r, self._denoiser.latent_shape) for r in segmented.regions]
        masks_RN = torch.stack(masks).to(self._denoiser.device)
        steps: list[_Step] = []
        for node in self._nodes:
            start = [s.V_KD for s in steps[-1].spectra] if steps else []
            steps.append(self._step(node, segmented, masks_RN, start, products))
        return steps

    def _step(
        self,
        node: int,
        segmented: Segmented,
        masks_RN: Tensor,
        start: Sequence[Tensor],
        products: Products,
    ) -> _Step:
        t, alpha = self._grid.timestep(node), self._grid.alphas[node]
        x_BLYX = segmented.inverted.states_LYX[t][None]
        with torch.no_grad():
            point = self._denoiser.encode(x_BLYX, t)
            x0_BLYX = predicted_x0(x_BLYX, point.eps_BLYX, alpha)
            predicted_BCHW = self._denoiser.image(x0_BLYX)
        jacobian: Jacobian
        options: dict[str, Any] = {"chunk": self._recipe.chunk, "products": products}
        if self._recipe.space == "h":
            jacobian = h_jacobian(self._denoiser, point, alpha, **options)
        else:
            jacobian = x_jacobian(self._denoiser, x_BLYX, t, alpha, **options)
        problem = RegionProblem(
            jacobian=jacobian,
            names=tuple(region.name for region in segmented.regions),
            masks_RN=masks_RN,
            predicted_CHW=predicted_BCHW[0],
            seed=segmented.inverted.sample.seed,
            to_latent=through_decoder(self._denoiser, x0_BLYX),
            start=start,
        )
        spectra = self._recipe.method(problem)
        counts = (jacobian.jvp_count, jacobian.vjp_count)
        cover_RHW = torch.stack([region.mask_HW for region in segmented.regions])
        brighter = brightening(self._denoiser, cover_RHW, problem.to_latent)
        return _Step(t, spectra, jacobian.products, *counts, brighter)

    def _directions(
        self, sample: Sample, region: Region, steps: Sequence[_Step], r: int
    ) -> Iterator[Direction]:
        """The region's directions, the strongest at the highest timestep first."""
        spectra = [step.spectra[r] for step in steps]
        count = min(len(s.S_K) for s in spectra)
        orders = [list(range(count))]
        for above, below in pairwise(spectra):
            above_KD = above.V_KD[orders[-1]]
            orders.append(matched_order(below.V_KD[:count].cpu(), above_KD.cpu()))
        for rank in range(count):
            ranks = [order[rank] for order in orders]
            V_SD = torch.stack([s.V_KD[k] for s, k in zip(spectra, ranks, strict=True)]).cpu()
            if self._recipe.sign_rule == SIGN_RULE:
                V_SD[0] *= fixed_sign(V_SD[0], steps[0].brighter(r, spectra[0].U_KN[ranks[0]]))
                V_SD = aligned_steps(V_SD, [step.t for step in steps])
            yield self._direction(sample, region, steps, V_SD, spectra, ranks)

    def _direction(
        self,
        sample: Sample,
        region: Region,
        steps: Sequence[_Step],
        V_SD: Tensor,
        spectra: Sequence[Spectrum],
        ranks: Sequence[int],
    ) -> Direction:
        vector_SCYX = stored(V_SD.view(len(V_SD), *self._shape), self._stamp.vector_dtype)
        timesteps = tuple(step.t for step in steps)
        identity = (self._recipe.space, self._stamp.h_layer, self._stamp.model, timesteps)
        pairs = list(zip(spectra, ranks, strict=True))
        in_h = self._recipe.space == "h"
        return Direction(
            vector_SCYX=vector_SCYX,
            id=content_id(vector_SCYX, *identity),
            space=self._recipe.space,
            h_layer=self._stamp.h_layer,
            model=self._stamp.model,
            timesteps=timesteps,
            method=self._recipe.name,
            parameters={**self._recipe.parameters, "products": steps[0].products},
            region=region.name,
            mask_sha256=region.mask_sha256,
            shard=sample.shard,
            index=sample.index,
            key=sample.key,
            rank=ranks[0],
            singular_value=sum(float(s.S_K[k]) for s, k in pairs) / len(pairs),
            gap=max(float(s.gap_K[k]) for s, k in pairs),
            residual=max(float(s.residual_K[k]) for s, k in pairs),
            angle=max(s.angle for s in spectra),
            converged=all(s.converged for s in spectra),
            jvp_count=sum(step.jvp_count for step in steps),
            vjp_count=sum(step.vjp_count for step in steps),
            sign_rule=self._recipe.sign_rule,
            h_norm=self._stamp.h_norms[timesteps[0]] if in_h else sqrt(prod(self._shape)),
        )
