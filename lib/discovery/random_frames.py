"""Random subspaces of a large space, drawn without making its vectors.

An orthonormal frame of c random directions in n dimensions is the Q factor of an n x c Gaussian
matrix G. Only G^T G = R^T R matters for angles, and R can be drawn by itself (Bartlett 1933):
upper triangular, normal above the diagonal, chi-distributed with n - i degrees of freedom on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def corner_of_frame(
    dimension: int, rows: int, columns: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The first `rows` rows of a random orthonormal (dimension, columns) frame, exact in
    distribution, at a cost that does not depend on `dimension`.

    Raises:
        ValueError: there are more rows or columns than dimensions.
    """
    if max(rows, columns) > dimension:
        raise ValueError(f"a corner of {rows} x {columns} does not fit into {dimension} dimensions")
    top = rng.standard_normal((rows, columns))
    whole = np.concatenate([top, _triangle(dimension - rows, columns, rng)])
    return np.linalg.qr(whole)[0][:rows]


def stacked_frames_norm(
    dimension: int, ranks: Sequence[int], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The largest singular value of independent random frames of these ranks side by side,
    (samples): how common the most common direction of unrelated subspaces looks.
    """
    edges = np.cumsum(ranks)[:-1]
    norms = np.empty(samples)
    for sample in range(samples):
        whole = _triangle(dimension, int(np.sum(ranks)), rng)
        frames = [np.linalg.qr(part)[0] for part in np.split(whole, edges, axis=1)]
        norms[sample] = np.linalg.norm(np.concatenate(frames, axis=1), 2)
    return norms


def _triangle(dimension: int, columns: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """R of a Gaussian (dimension, columns) matrix, or the matrix itself where that is smaller."""
    if dimension <= columns:
        return rng.standard_normal((dimension, columns))
    triangle = np.triu(rng.standard_normal((columns, columns)), 1)
    np.fill_diagonal(triangle, np.sqrt(rng.chisquare(dimension - np.arange(columns))))
    return triangle
