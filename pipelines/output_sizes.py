"""How large what a run leaves will be: estimated from its config, or from what a probe left."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lib.models.checkpoint import Checkpoint
from pipelines.config import RunConfig
from pipelines.discovery_work import DiscoveryWork, step_shape

_BYTES_A_PIXEL = {"png": 1.6, "jpeg": 0.35, "webp": 0.25}
"""Rough, at the default quality."""
_MEMBER_BYTES = 1200
"""Tar header, padding and, for JSON and mask, the content; on average."""
_COMMIT_BYTES, _ROW_BYTES = 18_000, 160
"""Of a commit's schema and record, and of a row in it, as in a run of the preset `demo`."""


@dataclass(frozen=True, slots=True)
class OutputSizes:
    """Bytes of a whole run by the folder they lie in; errors/ and the report are not among them."""

    images: int = 0
    directions: int = 0
    statistics: int = 0
    latents: int = 0
    commits: int = 0
    manifest: int = 0

    @property
    def results(self) -> int:
        """Of what was asked for, without the records of it."""
        return self.images + self.directions + self.statistics + self.latents

    @property
    def total(self) -> int:
        """All of it."""
        return self.results + self.commits + self.manifest

    def of_a_shard(self, shards: int) -> dict[str, float]:
        """Folder -> bytes, on average, of the files that are written for every shard, without the
        commit.
        """
        sizes = {
            "images": self.images,
            "directions": self.directions,
            "statistics": self.statistics,
            "latents": self.latents,
        }
        return {folder: size / shards for folder, size in sizes.items() if size and shards}


@dataclass(frozen=True, slots=True)
class FileSize:
    """Of a file of a shard: bytes in any case, and bytes for every image."""

    shard: float = 0.0
    image: float = 0.0

    def of(self, shards: int, images: int) -> int:
        """Of all files of a run."""
        return round(self.shard * shards + self.image * images)


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    """What a probe's files say."""

    images: FileSize
    directions: FileSize
    latents: FileSize
    commit: FileSize
    coreset: FileSize = FileSize()
    """Statistics that are of one size whatever the images are: those that regions come from."""

    def sizes(self, expected: OutputSizes, shards: int, images: int) -> OutputSizes:
        """Of a run of so many images; `expected` knows other statistics, which grow with the images
        of a shard up to a limit.
        """
        return OutputSizes(
            images=self.images.of(shards, images),
            directions=self.directions.of(shards, images),
            statistics=self.coreset.of(shards, images) or expected.statistics,
            latents=self.latents.of(shards, images),
            commits=self.commit.of(shards, images),
            manifest=self.commit.of(1, images),
        )


def edit_bytes(config: RunConfig, checkpoint: Checkpoint) -> int:
    """Of one edit in the output tar, estimated."""
    pixels = checkpoint.image_size**2
    image = _BYTES_A_PIXEL[config.output.format] * pixels
    pairs = config.output.layout == "pairs"
    return round(image * (2 if pairs else 1) + _MEMBER_BYTES * (4 if pairs else 2))


def direction_bytes(config: RunConfig, checkpoint: Checkpoint, work: DiscoveryWork) -> int:
    """Of one direction that is found in an image."""
    numbers = prod(step_shape(checkpoint, work.space)) * len(work.nodes)
    return numbers * {"float16": 2, "float32": 4}[config.output.vector_dtype]


def statistics_bytes(checkpoint: Checkpoint, work: DiscoveryWork, shards: int, images: int) -> int:
    """Of all that the shards leave to be learned from: rows of h, no more than they have images."""
    rows = shards * min(work.kept_rows, -(-images // max(1, shards)) * work.row_copies)
    return rows * prod(step_shape(checkpoint, work.space)) * len(work.nodes) * work.row_bytes


def expected_output(
    shards: int,
    images: int,
    *,
    rows: int = 1,
    edits: int = 0,
    directions: int = 0,
    latents: int = 0,
    statistics: int = 0,
) -> OutputSizes:
    """`rows` in the manifest, and bytes of edits, directions and latents, are an image's; those of
    statistics the run's.
    """
    records = images * rows * _ROW_BYTES
    return OutputSizes(
        images=images * edits,
        directions=images * directions,
        statistics=statistics,
        latents=images * latents,
        commits=shards * _COMMIT_BYTES + records,
        manifest=_COMMIT_BYTES + records,
    )
