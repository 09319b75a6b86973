"""What every pipeline is: the stages of one shard, chained, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa

from lib.records import Failure, Sample
from pipelines.inversions import Inversions, NoInversions
from tasks.stored_latents import InvertStage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Products:
    """What a flow made of one shard; see `lib.ledger.shard_result.ShardResult`."""

    rows: pa.Table
    images: bytes = b""
    directions: pa.Table | None = None
    statistics: bytes = b""
    dropped: Mapping[str, int] = field(default_factory=dict)


class Counted(Protocol):
    """Passes items through and counts each as a sign of life."""

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """The same items."""
        ...


class Flow(Protocol):
    """The stages of a pipeline, chained."""

    @property
    def image_size(self) -> int:
        """Side of the images that the model takes."""
        ...

    @property
    def inversions(self) -> Inversions | NoInversions:
        """Makes the invert stage of every shard."""
        ...

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """Bring all samples through the stages; what is returned does the rest without the model,
        and holds none of the stages.
        """
        ...
