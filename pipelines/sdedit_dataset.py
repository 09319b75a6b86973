"""The pipeline of the baseline SDEdit: noise, denoise, evaluate, write. Nothing is inverted,
segmented or discovered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lib.files import row_kinds
from lib.records import Failure, Sample
from lib.sampling.grid import renoised_nodes
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.evaluation_stage import build_evaluator, new_filter
from pipelines.inversions import NoInversions
from pipelines.learned_loading import load_rectification
from pipelines.shard_flow import Counted, Products
from pipelines.writing import ShardWriter
from tasks.evaluate import Evaluator
from tasks.sdedit import Renoiser
from tasks.stored_latents import InvertStage


class SdeditDataset:
    """Every image at every timestep with every noise."""

    def __init__(
        self,
        config: RunConfig,
        image_size: int,
        edit: Renoiser,
        evaluate: Evaluator,
        backlog: Backlog,
    ) -> None:
        self._config = config
        self._edit = edit
        self._evaluate = evaluate
        self._backlog = backlog
        """Encodes images while the model goes on."""
        self.image_size = image_size
        self.inversions = NoInversions()

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        writer = ShardWriter(
            self._config.output,
            injection="sdedit",
            window=self._edit.edited_timesteps,
            inversion=0,
            schema=row_kinds.of_config(self._config.model_dump(mode="json")).schema,
            backlog=self._backlog,
        )
        edited = counted(self._edit(samples, reject))
        kept = new_filter(self._config)
        for evaluated in kept(self._evaluate(edited, reject), reject):
            writer.add(evaluated)

        def finish() -> Products:
            images, edits, _ = writer.finish()
            return Products(edits, images=images, dropped=kept.dropped)

        return finish


def build_sdedit(config: RunConfig, engine: Engine, backlog: Backlog) -> SdeditDataset:
    """Make the stage.

    Raises:
        ModelProblem: a model of the section `evaluate` cannot be used.
        ConfigProblem: the timesteps do not fit the grid.
    """
    options = config.edit.sdedit
    edit = Renoiser(
        engine.denoiser,
        engine.grid,
        nodes=renoised_nodes(engine.grid.timesteps, options.timesteps),
        noises=options.seeds,
        batch_size=config.edit.batch_size,
        rectify=load_rectification(config, engine),
    )
    evaluate = build_evaluator(config, engine)
    return SdeditDataset(config, engine.denoiser.image_size, edit, evaluate, backlog)
