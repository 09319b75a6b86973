"""Several objectives as one, with the curve of each.

Shape suffixes: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from torch import Tensor

from lib.objectives.prediction import Objective, Prediction


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one batch."""

    total_B: Tensor
    """The weighted sum of each example; carries the gradient."""
    means: Mapping[str, Tensor]
    """Unweighted mean over the batch by the objective's name, without gradient, still on the
    device: reading a number waits for the device.
    """


class WeightedSum:
    """sum_i w_i L_i; raises ValueError unless weights are positive and names distinct."""

    def __init__(self, terms: Sequence[tuple[float, Objective]]) -> None:
        names = [objective.name for _, objective in terms]
        if not terms or len(set(names)) != len(names):
            raise ValueError(f"expected one or more objectives of distinct names, got {names}")
        for weight, objective in terms:
            if not (isfinite(weight) and weight > 0):
                raise ValueError(f"{objective.name}: expected a positive weight, got {weight}")
        self._terms = tuple(terms)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the terms, in their order."""
        return tuple(objective.name for _, objective in self._terms)

    def __call__(self, prediction: Prediction) -> Losses:
        """Raises ValueError where a term lacks what it compares with."""
        means: dict[str, Tensor] = {}
        total_B = prediction.edited_BCHW.new_zeros(())
        for weight, objective in self._terms:
            loss_B = objective(prediction)
            means[objective.name] = loss_B.detach().mean()
            total_B = total_B + weight * loss_B
        return Losses(total_B, MappingProxyType(means))
