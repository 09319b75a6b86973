"""How random each step is: eta over the timesteps, constant or piecewise linear; without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EtaSchedule:
    """eta between points is linear, beyond the outer ones constant."""

    points: tuple[tuple[int, float], ...]
    """(timestep, eta in [0, 1]), ascending by timestep; at least one. 0 is DDIM, 1 is DDPM."""

    def at(self, timestep: int) -> float:
        """eta of the step that begins at `timestep`."""
        (begin, value), *rest = self.points
        if timestep <= begin:
            return value
        for end, next_value in rest:
            if timestep <= end:
                return value + (next_value - value) * (timestep - begin) / (end - begin)
            begin, value = end, next_value
        return value


def constant_eta(eta: float) -> EtaSchedule:
    """The same at every timestep."""
    return EtaSchedule(((0, eta),))
