"""The invert stage: images to deterministic latents, only up to the edit timestep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.editors.editor_record import EVALUATIONS, RECTIFIER
from lib.records import Failure, Inverted, Sample
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler, noise_seed


class Inverter:
    """Inversion of micro-batches.

    Batches are cut by position in the shard (`index // batch_size`), so that a rejected sample
    never moves its neighbours into another batch.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        last: int,
        keep: frozenset[int],
        observe: frozenset[int] = frozenset(),
        sampler: Sampler,
        batch_size: int,
        rectify: Callable[[Sample], Denoiser] | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._last = last
        self._keep = keep
        """Nodes whose x_t discovery will ask for."""
        self._observe = {grid.timestep(node) for node in observe}
        """Timesteps at which h is kept of the last evaluation that inversion makes there anyway."""
        self._sampler = sampler
        self._batch_size = batch_size
        self._rectify = rectify
        """The network of one image, in the place of the frozen one."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image; with guidance two a prediction."""
        top = max(self._last, *self._keep, 0)
        rectified = 1 if self._rectify is None else EVALUATIONS[RECTIFIER]
        return rectified * self._denoiser.passes * self._sampler.inversion_evaluations(top)

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        """Samples whose latent is not finite are rejected as `not_finite`."""
        if self._rectify is not None:
            for sample in items:
                yield from self._invert([sample], reject, self._rectify(sample))
            return
        for _, batch in groupby(items, key=lambda s: s.index // self._batch_size):
            yield from self._invert(list(batch), reject, self._denoiser)

    @torch.no_grad()
    def _invert(
        self, samples: list[Sample], reject: Callable[[Failure], None], denoiser: Denoiser
    ) -> Iterator[Inverted]:
        x0_BLYX = self._denoiser.latent(torch.stack([s.image_CHW for s in samples]))
        h_BCYX: dict[int, Tensor] = {}
        found = self._sampler.invert(
            partial(self._predict, denoiser, h_BCYX),
            self._grid,
            x0_BLYX,
            last=self._last,
            wanted=self._keep,
            seeds=[noise_seed(s.shard, s.index) for s in samples],
        )
        for row, sample in enumerate(samples):
            latent = found.latent(row)
            kept = {self._grid.timestep(node): found.x[node][row] for node in self._keep}
            if latent.is_finite and all(bool(torch.isfinite(x).all()) for x in kept.values()):
                yield Inverted(sample, latent, kept, {t: h[row] for t, h in h_BCYX.items()})
            else:
                reject(
                    Failure(
                        sample.shard,
                        sample.index,
                        sample.key,
                        "invert",
                        "not_finite",
                        "the network gave NaN or infinity while this image was inverted",
                    )
                )

    def _predict(
        self, denoiser: Denoiser, h_BCYX: dict[int, Tensor], x_BLYX: Tensor, t: int
    ) -> Tensor:
        if t not in self._observe:
            return denoiser.predict(x_BLYX, t)
        point = denoiser.encode(x_BLYX, t)
        h_BCYX[t] = point.h_BCYX.float().cpu()
        return point.eps_BLYX
