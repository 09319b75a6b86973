"""The kernel distance (KID) between two sets of embeddings, from samples that can be merged.

Shape suffixes: N, M embeddings, E their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import Floats
from lib.metrics.sums import Figure

SAMPLE = 2000
"""Embeddings of each set that are compared."""
_BLOCKS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Those embeddings of a set whose hashes are smallest: a random choice, and the same one
    however the set is divided.
    """

    hash_N: npt.NDArray[np.uint64]
    """Ascending."""
    features_NE: npt.NDArray[np.float32]

    def __add__(self, other: Sample) -> Sample:
        """Of both sets together."""
        hash_N = np.concatenate([self.hash_N, other.hash_N])
        features_NE = np.concatenate([self.features_NE, other.features_NE])
        kept_N = np.argsort(hash_N, kind="stable")[:SAMPLE]
        return Sample(hash_N[kept_N], features_NE[kept_N])


def sample(names: Sequence[str], features_NE: npt.NDArray[np.float32]) -> Sample:
    """The sample of one batch; `names` are distinct in the whole set."""
    hashes = (int.from_bytes(sha256(name.encode()).digest()[:8], "little") for name in names)
    empty = np.empty((0, features_NE.shape[1]), np.float32)
    nothing = Sample(np.empty(0, np.uint64), empty)
    return nothing + Sample(np.fromiter(hashes, np.uint64, len(names)), features_NE)


def squared_mmd(x_NE: npt.ArrayLike, y_ME: npt.ArrayLike) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (<x, y> / E + 1)^3, float64
    (Binkowski et al. 2018, eq. 4); about 0 and possibly negative for sets of one distribution.

    Raises:
        ValueError: a set has fewer than two embeddings.
    """
    x, y = np.asarray(x_NE, np.float64), np.asarray(y_ME, np.float64)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"a kernel distance needs two embeddings of each set, got {n} and {m}")
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    same_x = (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
    same_y = (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(same_x + same_y - 2 * between.mean())


def kernel_distance(a: Sample, b: Sample) -> Figure:
    """`squared_mmd` of the two samples; the interval is 1.96 standard errors of its mean over ten
    disjoint blocks, NaN where there are fewer than 20 embeddings of each.
    """
    value = squared_mmd(a.features_NE, b.features_NE)
    error = math.nan
    if min(len(a.hash_N), len(b.hash_N)) >= 2 * _BLOCKS:
        blocks = [
            squared_mmd(a.features_NE[block::_BLOCKS], b.features_NE[block::_BLOCKS])
            for block in range(_BLOCKS)
        ]
        error = 1.96 * float(np.std(blocks, ddof=1)) / math.sqrt(_BLOCKS)
    return Figure(value, value - error, value + error, min(len(a.hash_N), len(b.hash_N)))


def _kernel(x_NE: Floats, y_ME: Floats) -> Floats:
    inner_NM: Floats = x_NE @ y_ME.T / x_NE.shape[1]
    return (inner_NM + 1) ** 3
