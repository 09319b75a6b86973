"""Where on the grid a direction acts: at the edited steps or its own timesteps for h, at its own
timesteps for x.

No torch here, so that `plan` can ask it of what a library says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from lib.editors.editor_record import NETWORK_SPACE
from lib.problems import ConfigProblem
from lib.sampling.grid import Grid, edited_nodes
from lib.sampling.step_weights import single_weight, window_weights

Part = tuple[float, int]
"""Factor on the shift, and the step of the direction's vector that is shifted."""


class Placed(Protocol):
    """A direction, or what a library says of it."""

    @property
    def id(self) -> str:
        """Of the direction."""
        ...

    @property
    def space(self) -> str:
        """h or x; `network` of an editor that changes the network itself."""
        ...

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Where it was found."""
        ...

    @property
    def window(self) -> tuple[int, int] | None:
        """Highest and lowest timestep at which it should be applied; None: any."""
        ...


def refuse_out_of_reach(
    directions: Sequence[Placed], grid: Grid, window: tuple[int, int], reach: str = "window"
) -> None:
    """Refuse directions that a run with this window would pass over in silence.

    Raises:
        ConfigProblem: a direction of x lies above the window, where decoding begins, or the window
            that a direction brings shares no grid timestep with the run's, or `reach` is "found"
            and the direction was found outside of them.
    """
    top = edited_nodes(grid.timesteps, window)[0]
    for direction in directions:
        if any(node > top for node in nodes_of_x(direction, grid)):
            raise ConfigProblem(
                f"edit.window: direction {direction.id} moves x at timestep"
                f" {max(direction.timesteps)}, and decoding begins at {grid.timestep(top)};"
                " expected a window whose highest timestep is not below it"
            )
        if direction.space == NETWORK_SPACE:
            inside = any(reaches(direction, window, t) for t in grid.timesteps)
        else:
            parts = parts_of_h(direction, grid, window, "asymmetric", reach)
            inside = direction.space != "h" or bool(parts)
        if inside:
            continue
        wide = parts_of_h(direction, grid, window, "asymmetric", "window")
        if reach == "found" and wide:
            raise ConfigProblem(
                f"edit.reach: direction {direction.id} was found at timesteps"
                f" {list(direction.timesteps)} and is to be applied nowhere else; expected a window"
                f" that holds their nearest grid timesteps, got {list(window)}"
            )
        raise ConfigProblem(
            f"edit.window: direction {direction.id} is to be applied in"
            f" {list(direction.window or window)}; expected a window that shares a grid timestep"
            f" with it, got {list(window)}"
        )


def reaches(direction: Placed, window: tuple[int, int], t: int) -> bool:
    """Whether timestep `t` lies in the window of a run and in the direction's own."""
    high, low = direction.window or window
    return max(low, window[1]) <= t <= min(high, window[0])


def nodes_of_x(direction: Placed, grid: Grid) -> tuple[int, ...]:
    """The node at which each step of a direction of x moves x_t; none for a direction of h."""
    if direction.space != "x":
        return ()
    return tuple(grid.nearest_node(t) for t in direction.timesteps)


def parts_of_h(
    direction: Placed, grid: Grid, window: tuple[int, int], injection: str, reach: str
) -> Mapping[int, Sequence[Part]]:
    """Node -> what a direction shifts there; nodes without a shift are left out.

    `reach` "window": at every node in the window, and in the direction's own if it has one, the
    step that was found nearest. "found": each step at the node nearest to its own timestep alone,
    if that lies in both windows.
    """
    if direction.space != "h":
        return {}
    high, low = direction.window or window
    both = (min(high, window[0]), max(low, window[1]))
    return _parts(grid, both, direction.timesteps, injection, reach)


@lru_cache(maxsize=4096)
def _parts(
    grid: Grid, window: tuple[int, int], timesteps: tuple[int, ...], injection: str, reach: str
) -> Mapping[int, Sequence[Part]]:
    if not any(window[1] <= t <= window[0] for t in grid.timesteps):
        return {}
    if reach == "window":
        return {
            node: ((weight, _nearest(timesteps, grid.timestep(node))),)
            for node, weight in window_weights(grid, window, injection).items()
        }
    parts: dict[int, tuple[Part, ...]] = {}
    for step, t in enumerate(timesteps):
        node = grid.nearest_node(t)
        if window[1] <= grid.timestep(node) <= window[0]:
            parts[node] = (*parts.get(node, ()), (single_weight(grid, node, injection), step))
    return parts


def _nearest(timesteps: Sequence[int], t: int) -> int:
    distances = [abs(t - found) for found in timesteps]
    return distances.index(min(distances))
