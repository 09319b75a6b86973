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
    image_N: npt.NDArray[np.uint64]
    """Hash of the image before editing."""
    features_NE: npt.NDArray[np.float32]

    def __add__(self, other: Sample) -> Sample:
        """Of both sets together."""
        hash_N = np.concatenate([self.hash_N, other.hash_N])
        image_N = np.concatenate([self.image_N, other.image_N])
        features_NE = np.concatenate([self.features_NE, other.features_NE])
        kept_N = np.argsort(hash_N, kind="stable")[:SAMPLE]
        return Sample(hash_N[kept_N], image_N[kept_N], features_NE[kept_N])

    def part(self, chosen: npt.NDArray[np.bool_]) -> Sample:
        """Those embeddings alone."""
        return Sample(self.hash_N[chosen], self.image_N[chosen], self.features_NE[chosen])


def sample(
    images: Sequence[str], edits: Sequence[object], features_NE: npt.NDArray[np.float32]
) -> Sample:
    """The sample of one batch: `images` names the image before editing of each embedding, `edits`
    which of its edits it is.
    """
    names = [f"{image}\0{edit}" for image, edit in zip(images, edits, strict=True)]
    empty = np.empty((0, features_NE.shape[1]), np.float32)
    nothing = Sample(_hashes(()), _hashes(()), empty)
    return nothing + Sample(_hashes(names), _hashes(images), features_NE)


def squared_mmd(a: Sample, b: Sample) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (<x, y> / E + 1)^3, float64
    (Binkowski et al. 2018, eq. 4); about 0 and possibly negative for sets of one distribution.

    Every mean is over pairs of different images: an edit and its own original, or two edits of one
    image, are no independent draws, and would make edits seem nearer to the originals than new
    images of the same distribution. For sets that share no image it is the usual estimator. NaN
    where no such pairs are left.
    """
    same_a, same_b, between = _mean(a, a), _mean(b, b), _mean(a, b)
    return same_a + same_b - 2 * between


def kernel_distance(a: Sample, b: Sample) -> Figure:
    """`squared_mmd` of the two samples; the interval is 1.96 standard errors of its mean over ten
    blocks, cut by image, NaN where a block has no pairs.
    """
    value = squared_mmd(a, b)
    blocks = [
        squared_mmd(*(s.part(s.image_N % np.uint64(_BLOCKS) == block) for s in (a, b)))
        for block in range(_BLOCKS)
    ]
    error = 1.96 * float(np.std(blocks, ddof=1)) / math.sqrt(_BLOCKS)
    return Figure(value, value - error, value + error, min(len(a.hash_N), len(b.hash_N)))


def _mean(a: Sample, b: Sample) -> float:
    """Of the kernel over pairs of different images."""
    x_NE, y_ME = a.features_NE.astype(np.float64), b.features_NE.astype(np.float64)
    different_NM = a.image_N[:, None] != b.image_N
    pairs = int(different_NM.sum())
    return float(_kernel(x_NE, y_ME)[different_NM].sum() / pairs) if pairs else math.nan


def _hashes(names: Sequence[str]) -> npt.NDArray[np.uint64]:
    found = [int.from_bytes(sha256(name.encode()).digest()[:8], "little") for name in names]
    return np.array(found, np.uint64)


def _kernel(x_NE: Floats, y_ME: Floats) -> Floats:
    inner_NM: Floats = x_NE @ y_ME.T / x_NE.shape[1]
    return (inner_NM + 1) ** 3
