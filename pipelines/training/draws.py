"""What every step of a training sees: which examples, at which timesteps, with which noise. A
function of seed and step alone, so that a restart goes on as if nothing had happened, and workers
share a batch without a word.

Shape suffixes: B examples of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lib.fingerprint import sample_seed
from lib.sampling.sampler import seeded_noise

_NOISE_NODE = 0
"""Of `seeded_noise`: the seeds differ already by step and example."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A batch, or a worker's part of it."""

    index: tuple[int, ...]
    """Of the examples."""
    share: tuple[float, ...]
    """In [0, 1): where in the window each timestep lies; stratified, so that a batch covers it."""
    seeds: tuple[int, ...]
    """Of each example's noise."""

    def part(self, rank: int, workers: int) -> Draw:
        """The `rank`-th of equal parts."""
        size = len(self.index) // workers
        own = slice(rank * size, (rank + 1) * size)
        return Draw(self.index[own], self.share[own], self.seeds[own])

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Unit noise (B, *shape), float32, CPU."""
        return seeded_noise(self.seeds, _NOISE_NODE, shape)


def draw(seed: int, step: int, *, examples: int, batch_size: int) -> Draw:
    """The batch of `step`, from 0: all examples once in a seeded order, then in another."""
    places = range(step * batch_size, (step + 1) * batch_size)
    index = tuple(_order(seed, p // examples, examples)[p % examples] for p in places)
    generator = torch.Generator().manual_seed(sample_seed(str(seed), "timesteps", step))
    strata = torch.randperm(batch_size, generator=generator)
    share = (strata + torch.rand(batch_size, generator=generator)) / batch_size
    seeds = tuple(sample_seed(str(seed), "noise", p) for p in places)
    return Draw(index, tuple(share.clamp(max=1 - 1e-6).tolist()), seeds)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, examples: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(sample_seed(str(seed), "order", epoch))
    return tuple(torch.randperm(examples, generator=generator).tolist())
