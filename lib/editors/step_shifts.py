"""A free delta h for every timestep (Asyrp's `--train_delta_h`, Kwon et al. 2023): one shift of h
for all images, learned as a parameter.

Shape suffixes: S steps, B batch, C channels, Y, X of h.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor, nn


class StepShifts(nn.Module):
    """delta h of a timestep, or of the trained one nearest to it. Begins at zero.

    What is learned is delta h in units of the root mean square of h's entries, so that a learning
    rate means the same in every model and at every timestep.
    """

    def __init__(
        self, timesteps: Sequence[int], h_norms: Sequence[float], shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.register_buffer("timesteps_S", torch.tensor(list(timesteps)), persistent=False)
        unit_S = torch.tensor(list(h_norms)) / sqrt(prod(shape))
        self.register_buffer("unit_S111", unit_S[:, None, None, None], persistent=False)
        self.steps_SCYX = nn.Parameter(torch.zeros(len(timesteps), *shape))

    def forward(self, h_BCYX: Tensor, t_B: Tensor) -> Tensor:
        """(B, C, Y, X), in units of h; only the shape of `h_BCYX` counts."""
        if h_BCYX.shape[1:] != self.steps_SCYX.shape[1:]:
            raise ValueError(
                f"expected h (B, {', '.join(map(str, self.steps_SCYX.shape[1:]))}), got"
                f" {tuple(h_BCYX.shape)}"
            )
        timesteps_S: Tensor = self.get_buffer("timesteps_S")
        nearest_B = (t_B[:, None] - timesteps_S[None]).abs().argmin(dim=1)
        return self.delta_SCYX[nearest_B].expand_as(h_BCYX)

    @property
    def delta_SCYX(self) -> Tensor:  # noqa: N802, a tensor
        """In units of h."""
        return self.steps_SCYX * self.get_buffer("unit_S111")
