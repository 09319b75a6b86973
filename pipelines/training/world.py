"""The workers of a training as one of them sees them: alone, or one of several that share every
batch and average their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class World(Protocol):
    """Where this process stands among the workers."""

    @property
    def rank(self) -> int:
        """0 writes what is written."""
        ...

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    @property
    def place(self) -> int:
        """Among the workers of this machine: 0 clears what they share."""
        ...

    def shared(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with gradients averaged over the workers."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """Over the workers; all of them call it at once."""
        ...

    def wait(self) -> None:
        """Until all workers are here."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """One process."""

    rank: int = 0
    workers: int = 1
    place: int = 0

    def shared(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module itself."""
        return module

    def mean(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def wait(self) -> None:
        """At once."""


@dataclass(frozen=True, slots=True)
class DataParallel:
    """One of several processes of a `torch.distributed` group that has been set up."""

    rank: int
    workers: int
    place: int

    def shared(self, module: nn.Module, device: torch.device) -> nn.Module:
        """DistributedDataParallel, which averages gradients while they are made."""
        places = [device] if device.type == "cuda" else None
        wrapped: Any = nn.parallel.DistributedDataParallel(module, device_ids=places)
        return wrapped  # type: ignore[no-any-return]

    def mean(self, value: Tensor) -> Tensor:
        """By an all-reduce."""
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total / self.workers

    def wait(self) -> None:
        """By a barrier."""
        torch.distributed.barrier()
