"""The pipelines that edit nothing: directions of every image, or sums of h over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from lib.direction import Direction
from lib.directions.direction_table import to_table
from lib.discovery.study import ShardSums
from lib.files import schemas
from lib.records import Failure, Sample
from pipelines.config import RunConfig
from pipelines.library_stages import FindingStages, LearningStages
from pipelines.sample_rows import sample_row
from pipelines.shard_flow import Counted, Products
from tasks.stored_latents import InvertStage


class FindDirections:
    """invert, segment, discover: the directions of every image by itself."""

    def __init__(self, config: RunConfig, stages: FindingStages) -> None:
        self._vector_dtype = config.output.vector_dtype
        self._stages = stages
        self.image_size = stages.image_size
        self.inversions = stages.invert

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        stages, vector_dtype = self._stages, self._vector_dtype
        inverted = counted(invert(samples, reject))
        segmented = stages.segment(inverted, reject)
        rows: list[dict[str, Any]] = []
        directions: list[Direction] = []
        for discovered in counted(stages.discover(segmented, reject)):
            inverted_one = discovered.segmented.inverted
            spent = stages.evaluations + discovered.evaluations
            rows.append(sample_row(inverted_one, discovered.directions, spent))
            directions.extend(discovered.directions)

        def finish() -> Products:
            table = to_table(directions, vector_dtype) if directions else None
            return Products(_table(rows), directions=table)

        return finish


class LearnDirections:
    """invert, observe, label: what finalize needs to learn directions from all images."""

    def __init__(self, stages: LearningStages) -> None:
        self._stages = stages
        self.image_size = stages.image_size
        self.inversions = stages.invert

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        stages = self._stages
        inverted = counted(invert(samples, reject))
        observed = counted(stages.observe(inverted, reject))
        rows: list[dict[str, Any]] = []
        sums = ShardSums(stages.study, shard)
        for labelled in stages.label(observed, reject):
            rows.append(sample_row(labelled.observed.inverted, (), stages.evaluations))
            sums.add(labelled.sample.index, labelled.observed.h_SCYX, labelled.scores)

        def finish() -> Products:
            return Products(_table(rows), statistics=sums.finish())

        return finish


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schemas.SAMPLES)
