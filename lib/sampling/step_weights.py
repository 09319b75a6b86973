"""How large the shift of h is at each step, so that a strength does not depend on the number of
steps.

Asymmetric injection moves the predicted x_0 by as much in a short step as in a long one, so the sum
over a window grows with the number of steps; in symmetric injection both terms of a step nearly
cancel, and what is left is proportional to its length. Either way an edit is an integral over the
window's timesteps, and a step's weight is the part of the window that it stands for.
"""

from __future__ import annotations

from itertools import pairwise

from lib.sampling.grid import Grid, edited_nodes

REFERENCE_STEPS = 20
"""Asymmetric strengths are those of steps of 1/20 of the schedule, fifty of a thousand timesteps.
"""


def window_weights(grid: Grid, window: tuple[int, int], injection: str) -> dict[int, float]:
    """Node -> factor on the shift there, for the nodes in `window` = (highest, lowest).

    Every timestep of the window, both ends included, belongs to one node in the window: to the
    nearest, weighed in units of 1/20 of the schedule (asymmetric); to the step that covers it,
    weighed as a part of that step (symmetric: 1 but at the ends of the window). The sum of
    asymmetric weights is the same on every grid; counting steps instead (Asyrp scales by 20 / N)
    is off by as much as one step more or less in the window.

    Raises:
        ConfigProblem: the window holds no timestep of the grid.
    """
    nodes = edited_nodes(grid.timesteps, window)
    high, low = min(window[0], grid.num_train_timesteps - 1) + 0.5, window[1] - 0.5
    steps = [grid.timestep(node) for node in nodes]
    if injection == "asymmetric":
        edges = [high, *((a + b) / 2 for a, b in pairwise(steps)), low]
        units = [_unit(grid)] * len(nodes)
    else:
        edges = [high, *(t + 0.5 for t in steps[1:]), low]
        units = [_length(grid, node) for node in nodes]
    return {
        node: (above - below) / unit
        for node, unit, (above, below) in zip(nodes, units, pairwise(edges), strict=True)
    }


def single_weight(grid: Grid, node: int, injection: str) -> float:
    """Factor on the shift of a direction that acts at its own timestep alone: as strong as one step
    of a grid of 20.

    An asymmetric shift moves the predicted x_0 by the same amount on every grid; a symmetric one by
    as much as the step is long.
    """
    return 1.0 if injection == "asymmetric" else _unit(grid) / _length(grid, node)


def _unit(grid: Grid) -> float:
    return grid.num_train_timesteps / REFERENCE_STEPS


def _length(grid: Grid, node: int) -> int:
    """Timesteps between a node and the one below; the clean image lies below timestep 0."""
    return grid.timestep(node) - (grid.timestep(node - 1) if node > 1 else -1)
