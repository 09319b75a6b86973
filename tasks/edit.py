"""The edit stage: decode every latent once per edit, batched over the edits of one image.

Shape suffixes: B edits, the reconstruction first; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import WHOLE
from lib.editing.edit_decoding import EditDecoder
from lib.editing.edit_plan import EditPlan
from lib.editing.edit_shifts import EditShifts
from lib.editing.region_guard import RegionGuard
from lib.editing.x_guidance import Along, XEdit
from lib.editors.editor_record import NETWORK_SPACE
from lib.pixels import decoded_images
from lib.records import Discovered, Edit, Edited, Failure, Region, Sample
from lib.regions import make_region, united
from lib.sampling.grid import Grid
from lib.sampling.sampler import Latent, Sampler
from lib.shift import Shift

_ALONG = Along()
Rectify = Callable[[Sample], Denoiser]
"""The denoiser with which an image is decoded."""


class Editor:
    """Makes the edits that the plan names.

    A direction with a window of its own is shifted only where both windows agree.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        sampler: Sampler,
        window: tuple[int, int],
        injection: str,
        plan: EditPlan,
        batch_size: int,
        h_norms: Mapping[int, float],
        reach: str = "window",
        x_edit: XEdit = _ALONG,
        guard: RegionGuard | None = None,
        rectify: Rectify | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._plan = plan
        self._batch_size = batch_size
        self._guard = guard
        self._rectify = rectify
        """The network of one image, in the place of the frozen one."""
        shifts = EditShifts(
            grid, window, injection, reach, h_norms, denoiser.h_shape, denoiser.latent_shape
        )
        self._nodes = shifts.nodes
        self.decoder = EditDecoder(denoiser, sampler, shifts, x_edit=x_edit, batch_size=batch_size)

    def __call__(
        self, items: Iterable[Discovered], reject: Callable[[Failure], None]
    ) -> Iterator[Edited]:
        """Rejects as `not_finite` a sample of which any edit is not finite, and as `no_edit` one of
        which the plan makes none.
        """
        for discovered in items:
            sample = discovered.segmented.inverted.sample
            shifts = self._plan(discovered)
            if not shifts:
                found = [f"{d.region} {d.rank}" for d in discovered.applicable]
                has = f"its directions are {', '.join(found)}" if found else "it has no direction"
                message = f"the plan has no edit for this image; {has}"
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "edit", "no_edit", message))
                continue
            latent = discovered.segmented.inverted.latent
            regions = edit_regions(discovered, shifts)
            x0_LYX = self._clean(sample, shifts)
            denoiser = self._rectify(sample) if self._rectify is not None else self._denoiser
            decoded = self.decoder(
                latent, shifts, self._kept(regions), denoiser=denoiser, x0_LYX=x0_LYX
            )
            if not bool(torch.isfinite(decoded.x_BLYX).all()):
                message = "the network gave NaN or infinity while this image was edited"
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "edit", "not_finite", message))
                continue
            images_BCHW = decoded_images(self._denoiser, decoded.x_BLYX, self._batch_size)
            spent = decoded.evaluations * denoiser.passes + discovered.evaluations
            made = zip(regions, shifts, images_BCHW[1:], strict=True)
            yield Edited(discovered, images_BCHW[0], spent, tuple(Edit(*edit) for edit in made))

    def decode(
        self, latent: Latent, shifts: Sequence[Shift], regions: Sequence[Region] = ()
    ) -> Tensor | None:
        """Images (1 + len(shifts), C, H, W) as uint8 on the CPU, the reconstruction first; None if
        not finite.

        `latent` belongs to the highest node of the window; `regions`, one a shift, are for a guard.

        Raises:
            ValueError: there is a guard and not a region for every shift.
        """
        if self._guard is not None and len(regions) != len(shifts):
            raise ValueError(f"a guard needs {len(shifts)} regions, got {len(regions)}")
        decoded = self.decoder(latent, shifts, self._kept(regions))
        if not bool(torch.isfinite(decoded.x_BLYX).all()):
            return None
        return decoded_images(self._denoiser, decoded.x_BLYX, self._batch_size)

    @torch.no_grad()
    def _clean(self, sample: Sample, shifts: Sequence[Shift]) -> Tensor | None:
        """The image's own latent, where an edit asks for it."""
        if all(term.direction.space != NETWORK_SPACE for s in shifts for term in s.terms):
            return None
        return self._denoiser.latent(sample.image_CHW[None])[0]

    def _kept(self, regions: Sequence[Region]) -> list[Tensor]:
        """Of every edit the mask of the guard, if there is one."""
        if self._guard is None:
            return []
        shape = self._denoiser.latent_shape
        distinct = {region.mask_sha256: region for region in regions}
        masks = {sha: self._guard.mask(r.mask_HW, shape) for sha, r in distinct.items()}
        return [masks[region.mask_sha256] for region in regions]

    @property
    def edited_timesteps(self) -> tuple[int, int]:
        """The highest and the lowest timestep at which h is shifted."""
        return self._grid.timestep(self._nodes[0]), self._grid.timestep(self._nodes[-1])


def edit_regions(discovered: Discovered, shifts: Sequence[Shift]) -> list[Region]:
    """Of every edit the region of its direction, united with those of what is added."""
    size = discovered.segmented.inverted.sample.image_CHW.shape[1:]
    regions: dict[str, Region] = {r.name: r for r in discovered.segmented.regions}
    regions[WHOLE] = make_region(WHOLE, torch.ones(size))
    return [united([regions[term.direction.region] for term in shift.terms]) for shift in shifts]
