"""The pipeline that learns regions: features of every image, summed up by shard, clustered when
the run is finalized. Nothing is inverted, segmented or edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

import pyarrow as pa
import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.files import schemas
from lib.masks.cluster_files import RegionStudy, encode_part
from lib.masks.clusters import Groups, Points, gathered, merged, reduced, to_arrays
from lib.masks.features import FeatureReader, shared_block
from lib.records import Failure, Sample
from lib.sampling.grid import training_alphas
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.inversions import NoInversions
from pipelines.model_source import open_model
from pipelines.sample_rows import looked_row
from pipelines.shard_flow import Counted, Products
from tasks.gather_features import FeatureGatherer
from tasks.stored_latents import InvertStage

_BLOCK = 32
"""Images whose points are reduced to a coreset at once, cut by index."""


class LearnRegions:
    """Looks at every image and leaves what its shard says of all points."""

    def __init__(
        self, image_size: int, gather: FeatureGatherer, study: RegionStudy, backlog: Backlog
    ) -> None:
        self._gather = gather
        self._study = study
        self._backlog = backlog
        """Reduces points while the model goes on."""
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
        rows = []
        sums = _ShardPoints(self._study, self._backlog)
        for featured in counted(self._gather(samples, reject)):
            rows.append(looked_row(featured.sample, self._gather.evaluations))
            sums.add(featured.sample.index, featured.points_PD)
        sums.close()

        def finish() -> Products:
            table = pa.Table.from_pylist(rows, schema=schemas.SAMPLES)
            return Products(table, statistics=sums.finish())

        return finish


class _ShardPoints:
    """Gathers the points of one shard, in the order of their images."""

    def __init__(self, study: RegionStudy, backlog: Backlog) -> None:
        self._study = study
        self._backlog = backlog
        self._groups = Groups(study.sizes, study.weights)
        self._block: list[tuple[int, Tensor]] = []
        self._parts: list[Future[Points]] = []

    def add(self, index: int, points_PD: Tensor) -> None:
        if self._block and index // _BLOCK != self._block[0][0] // _BLOCK:
            self._flush()
        self._block.append((index, points_PD))

    def close(self) -> None:
        """There are no more."""
        if self._block or not self._parts:
            self._flush()

    def finish(self) -> bytes:
        """The statistics file; of a shard without a usable image too."""
        parts = [part.result() for part in self._parts]
        whole = reduced(merged(parts), self._groups, self._study.coreset)
        return encode_part(self._study, to_arrays(whole))

    def _flush(self) -> None:
        points = [points_PD for _, points_PD in self._block]
        points_ND = torch.cat([torch.zeros(0, sum(self._study.sizes)), *points])
        size, images = self._study.coreset, len(points)
        self._parts.append(
            self._backlog.submit(gathered, points_ND, self._groups, size, images=images)
        )
        self._block = []


def build_region_learning(
    config: RunConfig, denoiser: Denoiser, model: str, backlog: Backlog
) -> LearnRegions:
    """Make the stage around the network whose weights have the SHA-256 `model`; raises
    ConfigProblem where it has no such block or timestep.
    """
    fit = config.region_model
    blocks = fit.blocks or (shared_block(denoiser),)
    reader = feature_reader(config, denoiser, fit.timesteps, blocks)
    with torch.no_grad():
        probe = reader(torch.zeros(1, 3, denoiser.image_size, denoiser.image_size))
    sizes = tuple(m.shape[1] for m in probe)
    study = RegionStudy(
        model=model,
        timesteps=fit.timesteps,
        blocks=blocks,
        sizes=sizes,
        weights=(*[1.0] * (len(sizes) - 1), fit.colour),
        clusters=fit.clusters,
        coreset=fit.coreset,
    )
    gather = FeatureGatherer(reader, pixels=fit.pixels, batch_size=config.invert.batch_size)
    return LearnRegions(denoiser.image_size, gather, study, backlog)


def feature_reader(
    config: RunConfig, denoiser: Denoiser, timesteps: tuple[int, ...], blocks: tuple[int, ...]
) -> FeatureReader:
    """Of the config's loaded model; raises ConfigProblem where it has no such block or timestep."""
    scheduler = open_model(config.model).scheduler_config
    alphas_T = [float(alpha) for alpha in training_alphas(scheduler)]
    return FeatureReader(denoiser, alphas_T, timesteps, blocks)
