"""The edit stage: decode every latent once per edit, batched over the edits of one image.

Shape suffixes: B edits, the reconstruction first; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import WHOLE
from lib.edit_decoding import EditDecoder
from lib.edit_plan import EditPlan
from lib.edit_shifts import EditShifts
from lib.grid import Grid, edited_nodes
from lib.injection import change, psnr, step_weight
from lib.records import Discovered, Edit, Edited, Failure, Region
from lib.regions import make_region, united
from lib.sampler import Latent, Sampler
from lib.shift import Shift


class Editor:
    """Makes the edits that the plan names, and measures them against the reconstruction.

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
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._plan = plan
        self._batch_size = batch_size
        self._nodes = edited_nodes(grid.timesteps, window)
        weight = step_weight(injection, grid.num_steps)
        shifts = EditShifts(
            grid,
            self._nodes,
            {t: weight * norm for t, norm in h_norms.items()},
            denoiser.h_shape,
            denoiser.latent_shape,
        )
        self.decoder = EditDecoder(
            denoiser, sampler, shifts, injection=injection, batch_size=batch_size
        )

    def __call__(
        self, items: Iterable[Discovered], reject: Callable[[Failure], None]
    ) -> Iterator[Edited]:
        """Rejects as `not_finite` a sample of which any edit is not finite."""
        for discovered in items:
            sample = discovered.segmented.inverted.sample
            shifts = self._plan(discovered)
            decoded = self.decoder(discovered.segmented.inverted.latent, shifts)
            if not bool(torch.isfinite(decoded.x_BLYX).all()):
                message = "the network gave NaN or infinity while this image was edited"
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "edit", "not_finite", message))
                continue
            images_BCHW = self._images(decoded.x_BLYX)
            evaluations = self._denoiser.passes * decoded.evaluations
            yield measured(discovered, shifts, images_BCHW, evaluations)

    def decode(self, latent: Latent, shifts: Sequence[Shift]) -> Tensor | None:
        """Images (1 + len(shifts), C, H, W) as uint8 on the CPU, the reconstruction first; None if
        not finite.

        `latent` belongs to the highest node of the window.
        """
        decoded = self.decoder(latent, shifts)
        if not bool(torch.isfinite(decoded.x_BLYX).all()):
            return None
        return self._images(decoded.x_BLYX)

    @property
    def edited_timesteps(self) -> tuple[int, int]:
        """The highest and the lowest timestep at which h is shifted."""
        return self._grid.timestep(self._nodes[0]), self._grid.timestep(self._nodes[-1])

    @torch.no_grad()
    def _images(self, x_BLYX: Tensor) -> Tensor:
        parts = x_BLYX.split(self._batch_size)
        return torch.cat([quantised(self._denoiser.image(part)).cpu() for part in parts])


def measured(
    discovered: Discovered, shifts: Sequence[Shift], images_BCHW: Tensor, evaluations: int
) -> Edited:
    """The record of a sample's edits; `images_BCHW` uint8, the reconstruction first."""
    sample = discovered.segmented.inverted.sample
    regions: dict[str, Region] = {r.name: r for r in discovered.segmented.regions}
    regions[WHOLE] = make_region(WHOLE, torch.ones(images_BCHW.shape[2:]))
    floats_BCHW = images_BCHW.float() / 127.5 - 1
    edits = []
    for row, shift in enumerate(shifts, 1):
        region = united([regions[term.direction.region] for term in shift.terms])
        inside, outside = change(floats_BCHW[row, None], floats_BCHW[:1], region.mask_HW)
        edits.append(Edit(region, shift, images_BCHW[row], float(inside), float(outside)))
    reconstruction = psnr(floats_BCHW[0], sample.image_CHW)
    return Edited(discovered, images_BCHW[0], reconstruction, evaluations, tuple(edits))


def quantised(image_BCHW: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded to nearest, clamped."""
    return ((image_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
