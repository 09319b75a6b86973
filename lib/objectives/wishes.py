"""What a classifier's output should become. No torch, so that a config can be checked in a light
process.
"""

from __future__ import annotations

from dataclasses import dataclass

from lib.models.transformers_folder import Answer
from lib.problems import ConfigProblem


@dataclass(frozen=True, slots=True)
class By:
    """The output of the plain prediction and so much more; of regressions."""

    amount: float


@dataclass(frozen=True, slots=True)
class To:
    """This value of the output; of classes a probability, 1 or 0 for a certain answer."""

    value: float


Wish = By | To


def refuse_unfit_wish(answer: Answer, wish: Wish) -> None:
    """Raises ConfigProblem where an output of this kind cannot become what is wished."""
    if answer == "regression":
        return
    if isinstance(wish, By):
        raise ConfigProblem(
            "expected `to` (1 for the class, 0 for its absence) for a classifier of"
            f" probabilities, got `by: {wish.amount}`, which is for regressions"
        )
    if not 0 <= wish.value <= 1:
        raise ConfigProblem(f"expected `to` between 0 and 1 for a probability, got {wish.value}")
