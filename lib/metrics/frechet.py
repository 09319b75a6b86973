"""The Fréchet distance between two sets of embeddings, from sums that can be added.

Shape suffixes: N embeddings, E their size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """Count, sum and sum of outer products of embeddings, float64."""

    count: int
    total_E: Floats
    outer_EE: Floats

    def __add__(self, other: Gaussian) -> Gaussian:
        """Of both sets together."""
        return Gaussian(
            self.count + other.count,
            self.total_E + other.total_E,
            self.outer_EE + other.outer_EE,
        )

    @property
    def centre(self) -> Floats:
        """Their mean, (E,)."""
        return self.total_E / self.count

    @property
    def covariance(self) -> Floats:
        """(E, E), unbiased (divided by count - 1).

        Raises:
            ValueError: there are fewer than two embeddings.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two embeddings or more, got {self.count}")
        mean_E = self.centre
        centred_EE = self.outer_EE - self.count * np.outer(mean_E, mean_E)
        return centred_EE / (self.count - 1)


def gaussian(features_NE: npt.ArrayLike) -> Gaussian:
    """The sums of one batch of embeddings."""
    x_NE = np.asarray(features_NE, np.float64)
    return Gaussian(len(x_NE), x_NE.sum(0), x_NE.T @ x_NE)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)), the squared 2-Wasserstein
    distance of the two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    The symmetric form needs eigenvalues of symmetric matrices alone, so it stays real where a
    covariance is singular (fewer images than dimensions), where the usual root of S_a S_b does
    not. It is biased upwards for few images: compare only sets of the same count.

    Raises:
        ValueError: a set has fewer than two embeddings.
    """
    covariance_a, covariance_b = a.covariance, b.covariance
    values_E, vectors_EE = np.linalg.eigh(covariance_a)
    root_EE = (vectors_EE * np.sqrt(values_E.clip(0))) @ vectors_EE.T
    between_E = np.linalg.eigvalsh(root_EE @ covariance_b @ root_EE)
    shift = float(np.square(a.centre - b.centre).sum())
    traces = float(np.trace(covariance_a) + np.trace(covariance_b))
    return max(0.0, shift + traces - 2 * float(np.sqrt(between_E.clip(0)).sum()))
