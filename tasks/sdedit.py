"""The edit stage of SDEdit (Meng et al. 2022, arXiv 2108.01073): noise every image to a timestep
and denoise it. A baseline: nothing is inverted, and no direction says what changes.

Shape suffixes: B edits of one image; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import sqrt

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import WHOLE
from lib.pixels import decoded_images
from lib.records import Edit, Edited, Failure, Renoised, Sample
from lib.regions import make_region
from lib.sampling.ddim import transfer
from lib.sampling.grid import Grid
from lib.sampling.sampler import seeded_noise

_ABOVE_ALL_NODES = 1001
"""Noises are drawn as if for nodes that no grid has, so that no sampler draws the same."""


class Renoiser:
    """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) z with seeded z, then deterministic DDIM on
    the grid.

    Every timestep is made with every noise; a noise is the same at all timesteps, so that levels
    can be compared.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        nodes: Sequence[int],
        noises: int,
        batch_size: int,
        rectify: Callable[[Sample], Denoiser] | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._jobs = [(node, noise) for node in nodes for noise in range(noises)]
        self._batch_size = batch_size
        self._rectify = rectify
        """The network of one image, in the place of the frozen one."""
        self._lowest = grid.timestep(1)

    @property
    def edited_timesteps(self) -> tuple[int, int]:
        """The highest and the lowest timestep that an edit goes through."""
        return self._grid.timestep(max(node for node, _ in self._jobs)), self._lowest

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Edited]:
        """Rejects as `not_finite` a sample of which any edit is not finite.

        What edits are compared with is the image itself, through the autoencoder where there is
        one.
        """
        for sample in items:
            denoiser = self._denoiser if self._rectify is None else self._rectify(sample)
            x_BLYX, evaluations = self._edited(denoiser, sample)
            if not bool(torch.isfinite(x_BLYX).all()):
                message = "the network gave NaN or infinity while this image was denoised"
                where = (sample.shard, sample.index, sample.key)
                reject(Failure(*where, "edit", "not_finite", message))
                continue
            passes = evaluations * denoiser.passes
            images_BCHW = decoded_images(self._denoiser, x_BLYX, self._batch_size)
            yield self._record(sample, images_BCHW, passes)

    @torch.no_grad()
    def _edited(self, denoiser: Denoiser, sample: Sample) -> tuple[Tensor, int]:
        """The clean latents, the image's own first; and the network evaluations spent."""
        x0_LYX = self._denoiser.latent(sample.image_CHW[None])[0]
        # From the noisiest on, so that few batches hold rows that wait for others.
        order = sorted(range(len(self._jobs)), key=lambda job: -self._jobs[job][0])
        done: dict[int, Tensor] = {}
        evaluations = 0
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            jobs = [self._jobs[job] for job in batch]
            x_BLYX, spent = self._walk(denoiser, x0_LYX, sample.seed, jobs)
            done |= dict(zip(batch, x_BLYX, strict=True))
            evaluations += spent
        return torch.stack([x0_LYX, *(done[job] for job in range(len(order)))]), evaluations

    def _walk(
        self, denoiser: Denoiser, x0_LYX: Tensor, seed: int, jobs: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, int]:
        """Jobs with descending nodes, each from its own node to the clean latent."""
        x_BLYX, evaluations = x0_LYX[None][:0], 0
        for node in range(jobs[0][0], 0, -1):
            joining = [noise for start, noise in jobs if start == node]
            fresh = [self._noised(x0_LYX, seed, node, noise) for noise in joining]
            x_BLYX = torch.cat([x_BLYX, *fresh])
            eps_BLYX = denoiser.predict(x_BLYX, self._grid.timestep(node))
            evaluations += len(x_BLYX)
            x_BLYX = transfer(
                x_BLYX, eps_BLYX, self._grid.alphas[node], self._grid.alphas[node - 1]
            )
        return x_BLYX, evaluations

    def _noised(self, x0_LYX: Tensor, seed: int, node: int, noise: int) -> Tensor:
        """x at `node`, (1, L, Y, X)."""
        alpha = self._grid.alphas[node]
        z_BLYX = seeded_noise([seed], _ABOVE_ALL_NODES + noise, x0_LYX.shape).to(x0_LYX.device)
        return sqrt(alpha) * x0_LYX + sqrt(1 - alpha) * z_BLYX

    def _record(self, sample: Sample, images_BCHW: Tensor, evaluations: int) -> Edited:
        whole = make_region(WHOLE, torch.ones(images_BCHW.shape[2:]))
        edits = []
        for (node, noise), image_CHW in zip(self._jobs, images_BCHW[1:], strict=True):
            level = sqrt(1 - self._grid.alphas[node])
            edits.append(Edit(whole, Renoised(self._grid.timestep(node), level, noise), image_CHW))
        return Edited(sample, images_BCHW[0], evaluations, tuple(edits))
