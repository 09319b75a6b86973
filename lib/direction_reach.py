"""Where on the grid a direction acts: at the edited steps for h, at its own timesteps for x.

No torch here, so that `plan` can ask it of what a library says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lib.grid import Grid, edited_nodes
from lib.problems import ConfigProblem


class Placed(Protocol):
    """A direction, or what a library says of it."""

    @property
    def id(self) -> str:
        """Of the direction."""
        ...

    @property
    def space(self) -> str:
        """h or x."""
        ...

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Where it was found."""
        ...

    @property
    def window(self) -> tuple[int, int] | None:
        """Highest and lowest timestep at which it should be applied; None: any."""
        ...


def refuse_out_of_reach(directions: Sequence[Placed], grid: Grid, window: tuple[int, int]) -> None:
    """Refuse directions that a run with this window would pass over in silence.

    Raises:
        ConfigProblem: a direction of x lies above the window, where decoding begins, or the window
            that a direction brings shares no grid timestep with the run's.
    """
    nodes = edited_nodes(grid.timesteps, window)
    top = grid.timestep(nodes[0])
    for direction in directions:
        if any(node > nodes[0] for node in nodes_of_x(direction, grid)):
            raise ConfigProblem(
                f"edit.window: direction {direction.id} moves x at timestep"
                f" {max(direction.timesteps)}, and decoding begins at {top}; expected a window"
                " whose highest timestep is not below it"
            )
        if direction.space == "h" and not any(
            shifts_h(direction, grid.timestep(node)) for node in nodes
        ):
            raise ConfigProblem(
                f"edit.window: direction {direction.id} is to be applied in"
                f" {list(direction.window or window)}; expected a window that shares a grid"
                f" timestep with it, got {list(window)}"
            )


def nodes_of_x(direction: Placed, grid: Grid) -> tuple[int, ...]:
    """The node at which each step of a direction of x moves x_t; none for a direction of h."""
    if direction.space != "x":
        return ()
    return tuple(grid.nearest_node(t) for t in direction.timesteps)


def shifts_h(direction: Placed, t: int) -> bool:
    """Whether a direction shifts h at an edited timestep `t`."""
    if direction.space != "h":
        return False
    return direction.window is None or direction.window[1] <= t <= direction.window[0]
