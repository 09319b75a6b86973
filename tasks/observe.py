"""The observe stage: h of every image at the wanted timesteps, for what is learned from all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.records import Failure, Inverted, Observed


class Observer:
    """Reads h at inverted states, in the micro-batches in which they were inverted."""

    def __init__(self, denoiser: Denoiser, *, timesteps: Sequence[int], batch_size: int) -> None:
        self._denoiser = denoiser
        self._timesteps = tuple(timesteps)
        """Of the grid; the inverter must keep x_t at each."""
        self._batch_size = batch_size

    @property
    def evaluations(self) -> int:
        """Network evaluations an image; with guidance two a prediction."""
        return self._denoiser.passes * len(self._timesteps)

    def __call__(
        self, items: Iterable[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Observed]:
        """h (S, C, Y, X) of each image, float32 on the CPU; rejects as `not_finite`."""
        for _, batch in groupby(items, key=lambda i: i.sample.index // self._batch_size):
            yield from self._observe(list(batch), reject)

    @torch.no_grad()
    def _observe(
        self, items: list[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Observed]:
        steps = []
        for t in self._timesteps:
            x_BLYX = torch.stack([item.states_LYX[t] for item in items])
            steps.append(self._denoiser.encode(x_BLYX, t).h_BCYX.float().cpu())
        for item, h_SCYX in zip(items, torch.stack(steps, dim=1), strict=True):
            yield from _observed(item, h_SCYX, reject)


class CaptureReader:
    """Takes h as inversion had it, at no evaluation: of the network's last look at a timestep.

    With bdia and ddpm that is at x_t itself. With ddim it is at the state from which the last
    refinement made x_t, without refinements at x of the node below; with edict at the second state.
    """

    evaluations = 0
    """Network evaluations an image."""

    def __init__(self, timesteps: Sequence[int]) -> None:
        self._timesteps = tuple(timesteps)
        """Of the grid; the inverter must observe each."""

    def __call__(
        self, items: Iterable[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Observed]:
        """As `Observer`."""
        for item in items:
            h_SCYX = torch.stack([item.h_CYX[t] for t in self._timesteps])
            yield from _observed(item, h_SCYX, reject)


def _observed(
    item: Inverted, h_SCYX: Tensor, reject: Callable[[Failure], None]
) -> Iterator[Observed]:
    if bool(torch.isfinite(h_SCYX).all()):
        yield Observed(item, h_SCYX)
    else:
        sample = item.sample
        where = (sample.shard, sample.index, sample.key)
        message = "the network's bottleneck is NaN or infinite for this image"
        reject(Failure(*where, "observe", "not_finite", message))
