"""What every way of inversion costs in network evaluations, known without torch: samplers count by
it, and so do plans.
"""

from __future__ import annotations

from typing import Literal

Method = Literal["ddim", "edict", "bdia", "ddpm"]


def inversion_evaluations(method: Method, last: int, *, refinements: int = 0) -> int:
    """Of an image, from the clean side up to node `last`; refinements are DDIM's."""
    if method == "ddim":
        return last * (1 + refinements)
    if method == "edict":
        return 2 * last
    if method == "bdia":
        return last + 1
    return last


def step_evaluations(method: Method) -> int:
    """Of an image, from one node to the node below."""
    return 2 if method == "edict" else 1


def states(method: str) -> int:
    """Tensors that the sampler carries from node to node, x_t among them."""
    return 2 if method in ("edict", "bdia") else 1
