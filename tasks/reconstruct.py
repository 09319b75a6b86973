"""The reconstruct stage: what comes back of every image unedited, for runs that edit nothing.

Shape suffixes: S states of the sampler, B images of a batch; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.pixels import as_floats, psnr, quantised
from lib.records import Inverted, Sample
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler


class Reconstructor:
    """Decodes latents without an edit, in the micro-batches in which they were inverted, and
    measures the images as they would be stored.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        sampler: Sampler,
        last: int,
        batch_size: int,
        rectify: Callable[[Sample], Denoiser] | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._sampler = sampler
        self._last = last
        """The node of the latents."""
        self._batch_size = batch_size
        self._rectify = rectify
        """The network of one image, in the place of the frozen one."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image; with guidance two an estimate of the noise."""
        return self._denoiser.passes * self._sampler.step_evaluations * self._last

    def __call__(self, items: Iterable[Inverted]) -> Iterator[Inverted]:
        """The same, with `psnr`; NaN where the reconstruction is not finite."""
        for _, batch in groupby(items, key=lambda i: i.sample.index // self._batch_size):
            yield from self._measure(list(batch))

    def _measure(self, items: list[Inverted]) -> Iterator[Inverted]:
        if self._rectify is None:
            images = list(self._images(self._denoiser, items))
        else:
            images = [self._images(self._rectify(item.sample), [item])[0] for item in items]
        for item, image_CHW in zip(items, images, strict=True):
            finite = bool(torch.isfinite(image_CHW).all())
            stored_CHW = as_floats(quantised(image_CHW))
            value = psnr(stored_CHW, item.sample.image_CHW) if finite else float("nan")
            yield replace(item, psnr=value)

    @torch.no_grad()
    def _images(self, denoiser: Denoiser, items: Sequence[Inverted]) -> Tensor:
        states_SBLYX = torch.stack([item.latent.states_SLYX for item in items], dim=1)
        for node in range(self._last, 0, -1):
            noises = [item.latent.noises.get(node) for item in items]
            found = [z_LYX for z_LYX in noises if z_LYX is not None]
            noise_BLYX = torch.stack(found) if found else None
            steer = partial(self._steer, denoiser, self._grid.timestep(node))
            states_SBLYX = self._sampler.step(steer, self._grid, node, states_SBLYX, noise_BLYX)
        return self._denoiser.image(states_SBLYX[0].float()).cpu()

    def _steer(self, denoiser: Denoiser, t: int, x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
        eps_BLYX = denoiser.predict(x_BLYX.float(), t)
        return eps_BLYX, eps_BLYX
