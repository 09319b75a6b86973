"""The flow that a worker uses: made anew with smaller batches when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lib.models.kernels import release_unused
from pipelines.batch_limit import largest_batch, limited
from pipelines.config import RunConfig
from pipelines.shard_flow import Flow

FlowMaker = Callable[[RunConfig], Flow]
"""Makes the stages of a config around a model that is loaded already."""

_log = logging.getLogger(__name__)


class WorkerFlow:
    """One flow at a time. Only whoever holds the model may use it, so that nothing holds stages of
    an earlier flow while the next one is made.
    """

    def __init__(self, config: RunConfig, make: FlowMaker) -> None:
        self._config = config
        self._make = make
        self._made: Flow | None = make(config)
        self.limit: int | None = None
        """No batch is larger; None while memory has sufficed for those of the config."""

    @property
    def current(self) -> Flow:
        """The flow, made now if it has been dropped; raises what its making raises."""
        if self._made is None:
            release_unused()
            self._made = self._make(self._config)
        return self._made

    def drop(self) -> None:
        """Memory ran out: give up the stages, and what they hold on the device."""
        self._made = None

    def shrink(self, why: str) -> None:
        """Halve the largest batch, for this shard and all later ones.

        Raises:
            ValueError: no batch is above 1.
        """
        if not self.can_shrink:
            raise ValueError("no batch is above 1")
        self.limit = largest_batch(self._config) // 2
        self._config = limited(self._config, self.limit)
        self.drop()
        _log.warning("out of memory, so no batch above %d from here on: %s", self.limit, why)

    @property
    def can_shrink(self) -> bool:
        """Whether any batch is above 1."""
        return largest_batch(self._config) > 1
