"""What each method of discovery costs, from the config and the checkpoint's files alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lib.checkpoint import Checkpoint
from lib.grid import edited_nodes, nearest_node
from lib.library_files import library_files
from lib.problems import ConfigProblem
from lib.transformers_folder import classifier_sha256, open_text_image
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery, PullbackDiscovery, TextDiscovery
from pipelines.jacobian_products import estimated_products
from pipelines.study_config import PcaDiscovery, SupervisedDiscovery


@dataclass(frozen=True, slots=True)
class DiscoveryWork:
    """Of one image, except where a shard is named."""

    nodes: tuple[int, ...]
    """Of the grid, at which x_t is asked for."""
    space: str = "h"
    """Of the directions."""
    found: int = 0
    """Directions found in the image."""
    applied: int = 0
    """Directions that an edit run applies to it, at most."""
    products: int = 0
    """Of the Jacobian, forward and reverse together, estimated."""
    kept_rows: int = 0
    """Rows of h that a shard's statistics hold at most."""
    row_copies: int = 1
    """How often an image may be among them."""
    row_bytes: int = 0
    """Bytes a number in them."""


def discovery_work(config: RunConfig, timesteps: tuple[int, ...]) -> DiscoveryWork:
    """Count the work of `config.discover` on a grid of `timesteps`.

    Raises:
        ConfigProblem: a library is not there, the timesteps do not fit the grid, or x would have
            to be moved above the window, where decoding begins.
        ModelProblem: a classifier or text model is not there.
    """
    discover, regions = config.discover, len(config.segment.regions)
    if isinstance(discover, LibraryDiscovery):
        library_files(discover.path)
        return DiscoveryWork((), applied=len(discover.ids) or discover.max_directions)
    nodes = wanted_nodes(timesteps, discover.timesteps, config.edit.window)
    if config.pipeline == "edit_dataset" and getattr(discover, "space", "h") == "x":
        _refuse_above(timesteps, nodes, config.edit.window)
    match discover:
        case PcaDiscovery():
            return DiscoveryWork(nodes, kept_rows=discover.sketch_rank, row_bytes=8)
        case SupervisedDiscovery():
            if discover.classifier is not None:
                classifier_sha256(discover.classifier)
            sides = 2 * len(discover.labels) * (1 if discover.balance is None else 2)
            return DiscoveryWork(
                nodes, kept_rows=sides * discover.examples, row_copies=sides, row_bytes=4
            )
        case TextDiscovery():
            open_text_image(discover.model)
            found = regions
        case PullbackDiscovery():
            if discover.transport is not None:
                library_files(discover.transport, "discover.transport")
            found = discover.directions
        case _:
            found = regions * discover.directions
    products = estimated_products(discover, regions)
    space = getattr(discover, "space", "h")
    return DiscoveryWork(nodes, space=space, found=found, applied=found, products=products)


def wanted_nodes(
    timesteps: tuple[int, ...], wanted: tuple[int, ...], window: tuple[int, int]
) -> tuple[int, ...]:
    """The nodes nearest to the `wanted` timesteps, in their order; without any, all in the window,
    the highest first.

    Raises:
        ConfigProblem: two wanted timesteps have the same node, or the window holds none.
    """
    if not wanted:
        return tuple(edited_nodes(timesteps, window))
    nodes = tuple(nearest_node(timesteps, t) for t in wanted)
    if len(set(nodes)) < len(nodes):
        raise ConfigProblem(
            "discover.timesteps: expected timesteps with different nearest neighbours in the grid,"
            f" got {list(wanted)}, which are {[timesteps[node - 1] for node in nodes]} there"
        )
    return nodes


def _refuse_above(
    timesteps: tuple[int, ...], nodes: tuple[int, ...], window: tuple[int, int]
) -> None:
    top = edited_nodes(timesteps, window)[0]
    if max(nodes) > top:
        raise ConfigProblem(
            f"discover.timesteps: x is to be moved at timestep {timesteps[max(nodes) - 1]}, and"
            f" decoding begins at {timesteps[top - 1]}; expected no timestep above edit.window"
        )


def entries(checkpoint: Checkpoint, space: str) -> int:
    """Numbers in one step of x_t, or of h: the channels of the last level, at its size."""
    if space == "x":
        return prod(checkpoint.latent_shape)
    channels = checkpoint.unet.config.get("block_out_channels", [64])
    side = max(1, checkpoint.latent_shape[1] >> (checkpoint.unet.levels - 1))
    return int(channels[-1]) * side * side
