"""The pipeline that edits: invert, segment, discover, edit, evaluate, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lib.files import row_kinds
from lib.records import Failure, Sample
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.evaluation_stage import new_filter
from pipelines.shard_flow import Counted, Products
from pipelines.stages import Stages
from pipelines.writing import ShardWriter
from tasks.stored_latents import InvertStage


class EditDataset:
    """Every image with the edits that the plan makes of it."""

    def __init__(self, config: RunConfig, stages: Stages, backlog: Backlog) -> None:
        self._config = config
        self._stages = stages
        self._backlog = backlog
        """Encodes images while the model goes on."""
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
        writer = ShardWriter(
            self._config.output,
            injection=self._config.edit.injection,
            window=stages.edit.edited_timesteps,
            inversion=stages.invert.evaluations,
            schema=row_kinds.of_config(self._config.model_dump(mode="json")).schema,
            backlog=self._backlog,
        )
        inverted = counted(invert(samples, reject))
        segmented = stages.segment(inverted, reject)
        discovered = counted(stages.discover(segmented, reject))
        edited = counted(stages.edit(discovered, reject))
        kept = new_filter(self._config)
        for evaluated in kept(stages.evaluate(edited, reject), reject):
            writer.add(evaluated)

        def finish() -> Products:
            images, edits, directions = writer.finish()
            return Products(edits, images, directions, dropped=kept.dropped)

        return finish
