"""How sure a figure is: a Poisson bootstrap over images that needs no second pass and no order.

In every replicate an image counts w times, w ~ Poisson(1) (Hanley & MacGibbon 2006; Chamandy et
al. 2012), for all of its edits together. w is a hash of (shard, index, replicate): whoever reads
the image, in whatever order, draws the same weights, so partial results add up to those of one
pass.

Shape suffixes: I images, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
import numpy.typing as npt

REPLICATES = 500
LEVEL = 0.95

Floats = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MOST = 12
"""Of an image in a replicate; the rest of the distribution is below 1e-10."""


def image_seeds(shard: str, indices: Iterable[int]) -> npt.NDArray[np.uint64]:
    """(I,): of the images at `indices` of the shard."""
    hashes = (sha256(f"{shard}\0{index}".encode()).digest()[:8] for index in indices)
    return np.array([int.from_bytes(h, "little") for h in hashes], np.uint64)


def weights(
    seeds_I: npt.NDArray[np.uint64], first: int = 0, replicates: int = REPLICATES
) -> npt.NDArray[np.uint8]:
    """(I, R): how often each image counts in the replicates from `first` on."""
    steps_R = np.arange(first + 1, first + replicates + 1, dtype=np.uint64) * _STEP
    uniform_IR = _mixed(seeds_I[:, None] + steps_R).astype(np.float64) / 2.0**64
    return np.searchsorted(_cumulative(), uniform_IR, side="right").astype(np.uint8)


def interval(values_R: Floats) -> tuple[float, float]:
    """The middle 95 % of the replicates (percentile bootstrap, Efron 1979); two NaN where fewer
    than half of them have a value: there are too few images.
    """
    known = values_R[np.isfinite(values_R)]
    if known.size < max(2, values_R.size / 2):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _cumulative() -> Floats:
    """P(w <= k) for k = 0, 1, ..., w ~ Poisson(1)."""
    return np.cumsum([math.exp(-1) / math.factorial(k) for k in range(_MOST)])


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al. 2014): every bit depends on every other."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
