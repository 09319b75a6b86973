"""What a run will cost, from the config and the inputs alone: no torch, no ray, no model in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lib import storage
from lib.checkpoint import Checkpoint, open_checkpoint
from lib.grid import edited_nodes, grid_timesteps, nearest_node
from lib.library_files import library_files
from lib.problems import ConfigProblem
from lib.samples import ShardDamage, read_shard
from pipelines.config import RunConfig
from pipelines.discovery_config import JacobianDiscovery, LibraryDiscovery
from pipelines.inputs import ShardInput
from pipelines.number_texts import size

_BYTES_A_PIXEL = {"png": 1.6, "jpeg": 0.35, "webp": 0.25}
"""Rough, at the default quality."""
_MEMBER_BYTES = 1200
"""Tar header, padding and, for JSON and mask, the content; on average."""
_PROBED_SHARDS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts an image, and estimated sizes."""

    shards: int
    images: int
    """Estimated from the first readable shard and the sizes of a few."""
    edits: int
    """An image; for a library, at most."""
    inversion: int
    """Network evaluations."""
    decoding: int
    """Network evaluations, a decoder-only pass counted as one."""
    jacobian_products: int
    """Forward and reverse products of the decoder half together, estimated; 0 for a library."""
    edit_timesteps: tuple[int, int]
    output_bytes: int
    """Estimated, of the whole run."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image, without the Jacobian's products."""
        return self.inversion + self.decoding

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, ready to print."""
        high, low = self.edit_timesteps
        return [
            ("images (estimate)", f"{self.images:,}"),
            ("edited timesteps", f"{high} down to {low}; inversion stops at {high}"),
            ("edits an image", f"{self.edits:,}"),
            (
                "network evaluations an image",
                f"{self.evaluations:,} ({self.inversion:,} inversion, {self.decoding:,} decoding)",
            ),
            ("Jacobian products an image (estimate)", f"{self.jacobian_products:,}"),
            ("output (estimate)", size(self.output_bytes)),
        ]


def make_plan(config: RunConfig, inputs: Sequence[ShardInput]) -> Plan:
    """Check the config against the checkpoint and count.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: the grid, the window or the library do not fit.
    """
    checkpoint = open_checkpoint(config.model.checkpoint)
    timesteps = grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )
    nodes = edited_nodes(timesteps, config.edit.window)
    top = nodes[0]
    if isinstance(config.discover, LibraryDiscovery):
        library_files(config.discover.path)
        directions = len(config.discover.ids) or config.discover.max_directions
        products = 0
    elif not isinstance(config.discover, JacobianDiscovery):
        raise ConfigProblem(f"discover.method: {config.discover.method} cannot be planned yet")
    else:
        regions = len(config.segment.regions)
        directions = regions * config.discover.directions
        # Joint Krylov basis: some five products of either kind a direction and region.
        products = 10 * regions * (config.discover.directions + 1)
        top = max(top, *(nearest_node(timesteps, t) for t in config.discover.timesteps))
    edits = directions * len(config.edit.strengths)
    both = len(nodes) if config.edit.injection == "asymmetric" else 0
    shared = 1 if both else 0
    images = _images(config, inputs)
    return Plan(
        shards=len(inputs),
        images=images,
        edits=edits,
        inversion=top * (1 + config.invert.refinements),
        decoding=shared + (nodes[0] + both - shared) * (edits + 1),
        jacobian_products=products,
        edit_timesteps=(timesteps[nodes[0] - 1], timesteps[nodes[-1] - 1]),
        output_bytes=images * edits * _edit_bytes(config, checkpoint),
    )


def _images(config: RunConfig, inputs: Sequence[ShardInput]) -> int:
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


def _edit_bytes(config: RunConfig, checkpoint: Checkpoint) -> int:
    pixels = checkpoint.image_size**2
    image = _BYTES_A_PIXEL[config.output.format] * pixels
    pairs = config.output.layout == "pairs"
    return round(image * (2 if pairs else 1) + _MEMBER_BYTES * (4 if pairs else 2))
