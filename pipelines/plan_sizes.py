"""How many images a run has and how large what it leaves will be, estimated for its plan."""

from __future__ import annotations

from collections.abc import Sequence

from lib.files import storage
from lib.files.samples import ShardDamage, read_shard
from lib.models.checkpoint import Checkpoint
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput

_BYTES_A_PIXEL = {"png": 1.6, "jpeg": 0.35, "webp": 0.25}
"""Rough, at the default quality."""
_MEMBER_BYTES = 1200
"""Tar header, padding and, for JSON and mask, the content; on average."""
_PROBED_SHARDS = 16


def estimated_images(config: RunConfig, inputs: Sequence[ShardInput]) -> int:
    """Images in all shards, taking the first readable shard's bytes an image for all."""
    limit = config.input.max_shard_bytes
    sizes, samples_a_byte = [], 0.0
    for shard in inputs[:_PROBED_SHARDS]:
        try:
            sizes.append(storage.info(shard.url).size)
            if not samples_a_byte:
                data = storage.read_bytes(shard.url, max_bytes=limit)
                found = read_shard(data, shard.name, max_bytes=limit, salvage=True)
                samples_a_byte = found.n_in / len(data)
        except (FileNotFoundError, ShardDamage, storage.ObjectTooLargeError):
            continue  # the run will name it; a plan only counts
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    return round(mean * len(inputs) * samples_a_byte)


def edit_bytes(config: RunConfig, checkpoint: Checkpoint) -> int:
    """Of one edit in the output tar, estimated."""
    pixels = checkpoint.image_size**2
    image = _BYTES_A_PIXEL[config.output.format] * pixels
    pairs = config.output.layout == "pairs"
    return round(image * (2 if pairs else 1) + _MEMBER_BYTES * (4 if pairs else 2))
