"""The invert stage: images to deterministic latents, only up to the edit timestep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import torch

from lib.ddim import inversion
from lib.denoiser import Denoiser
from lib.grid import Grid
from lib.records import Failure, Inverted, Sample


class Inverter:
    """DDIM inversion of micro-batches.

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
        refinements: int,
        batch_size: int,
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._last = last
        self._keep = keep
        """Nodes whose x_t discovery will ask for."""
        self._refinements = refinements
        self._batch_size = batch_size

    @property
    def evaluations(self) -> int:
        """Network evaluations an image."""
        return max(self._last, *self._keep, 0) * (1 + self._refinements)

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        """Samples whose latent is not finite are rejected as `not_finite`."""
        for _, batch in groupby(items, key=lambda s: s.index // self._batch_size):
            yield from self._invert(list(batch), reject)

    @torch.no_grad()
    def _invert(
        self, samples: list[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        x0_BLYX = self._denoiser.latent(torch.stack([s.image_CHW for s in samples]))
        top = max(self._last, *self._keep, 0)
        steps = inversion(
            self._denoiser.predict, self._grid, x0_BLYX, last=top, refinements=self._refinements
        )
        wanted = self._keep | {self._last}
        states = {node: x_BLYX for node, x_BLYX in steps if node in wanted}
        for row, sample in enumerate(samples):
            own = {node: x_BLYX[row] for node, x_BLYX in states.items()}
            if all(bool(torch.isfinite(x_LYX).all()) for x_LYX in own.values()):
                kept = {self._grid.timestep(node): own[node] for node in self._keep}
                yield Inverted(sample, own[self._last], kept)
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
