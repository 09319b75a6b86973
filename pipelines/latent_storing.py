"""The pipeline that only inverts: latents for later runs, which then pay nothing for inversion."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from lib.files import schemas
from lib.records import Failure, Sample
from lib.sampling.grid import edited_nodes
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.inversions import Inversions
from pipelines.sample_rows import sample_row
from pipelines.shard_flow import Counted, Products
from pipelines.stages import build_inversions
from tasks.stored_latents import InvertStage


class StoreLatents:
    """invert: every image up to the top of the window."""

    def __init__(self, image_size: int, inversions: Inversions) -> None:
        self.image_size = image_size
        self.inversions = inversions

    def __call__(
        self,
        shard: str,
        invert: InvertStage,
        samples: Iterable[Sample],
        reject: Callable[[Failure], None],
        counted: Counted,
    ) -> Callable[[], Products]:
        """See `pipelines.shard_flow.Flow`."""
        rows = [
            sample_row(inverted, (), self.inversions.evaluations)
            for inverted in counted(invert(samples, reject))
        ]
        return lambda: Products(pa.Table.from_pylist(rows, schema=schemas.SAMPLES))


def build_latent_storing(config: RunConfig, engine: Engine) -> StoreLatents:
    """Make the stage.

    Raises:
        ConfigProblem: the window holds no timestep of the grid.
    """
    last = edited_nodes(engine.grid.timesteps, config.edit.window)[0]
    inversions = build_inversions(config, engine, last=last, keep=frozenset())
    return StoreLatents(engine.denoiser.image_size, inversions)
