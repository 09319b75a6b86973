"""What each method of discovery costs, from the config and the checkpoint's files alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lib.directions.edit_query import Candidate
from lib.directions.library_facts import LibraryFact, library_facts
from lib.models.checkpoint import Checkpoint
from lib.models.transformers_folder import classifier_sha256, open_text_image
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from lib.sampling.grid import edited_nodes, nearest_node
from pipelines.config import RunConfig
from pipelines.discovery_config import (
    LibraryDiscovery,
    NoDiscovery,
    PullbackDiscovery,
    TextDiscovery,
)
from pipelines.jacobian_products import estimated_products
from pipelines.learned_editors import chosen_editors
from pipelines.reference_config import ReferenceDiscovery, ReferenceImage
from pipelines.reference_files import reference_bytes
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
    candidates: tuple[Candidate, ...] = ()
    """Directions that an edit run may apply to it, at most, as far as they are known before."""
    library: tuple[LibraryFact, ...] = ()
    """Directions that are read from a library, to be applied or carried into the image."""
    editors: tuple[LibraryFact, ...] = ()
    """Learned editors, which come first among the candidates."""
    products: int = 0
    """Of the Jacobian, forward and reverse together, estimated."""
    kept_rows: int = 0
    """Rows of h that a shard's statistics hold at most."""
    row_copies: int = 1
    """How often an image may be among them."""
    row_bytes: int = 0
    """Bytes a number in them."""


def discovery_work(config: RunConfig, timesteps: tuple[int, ...]) -> DiscoveryWork:
    """Count the work of `config.discover` on a grid of `timesteps`; the candidates are those of
    learned editors, then those of directions.

    Raises:
        ConfigProblem: a library is not there, the timesteps do not fit the grid, x would have to
            be moved above the window, where decoding begins, or directions that are applied only
            where they are found are found outside of it.
        ModelProblem: a classifier or text model is not there.
    """
    editors = tuple(chosen.fact for chosen in chosen_editors(config))
    work = _discovery_work(config, timesteps, with_editors=bool(editors))
    candidates = (*(fact.candidate for fact in editors), *work.candidates)
    return replace(work, candidates=candidates, editors=editors)


def _discovery_work(
    config: RunConfig, timesteps: tuple[int, ...], *, with_editors: bool
) -> DiscoveryWork:
    discover, regions = config.discover, len(config.segment.regions)
    if isinstance(discover, NoDiscovery):
        return DiscoveryWork(())
    if isinstance(discover, LibraryDiscovery):
        facts = library_facts(
            discover.path,
            ids=discover.ids,
            regions=discover.regions or (*config.segment.regions, WHOLE),
            max_rank=discover.max_rank,
            max_directions=discover.max_directions,
            optional=with_editors,
        )
        return DiscoveryWork((), candidates=tuple(f.candidate for f in facts), library=facts)
    nodes = wanted_nodes(timesteps, discover.timesteps, config.edit.window)
    if config.pipeline == "edit_dataset" and getattr(discover, "space", "h") == "x":
        _refuse_above(timesteps, nodes, config.edit.window)
    elif config.edit.reach == "found" and (
        config.pipeline == "edit_dataset" or isinstance(discover, ReferenceDiscovery)
    ):
        _refuse_outside(timesteps, nodes, config.edit.window)
    carried: tuple[LibraryFact, ...] = ()
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
            found = _expected(discover.method, config.segment.regions, 1)
        case ReferenceDiscovery():
            if isinstance(discover.reference, ReferenceImage):
                reference_bytes(discover.reference.image)
            found = _expected(discover.method, config.segment.regions, 1)
        case PullbackDiscovery():
            found = _expected(discover.method, [WHOLE], discover.directions)
            if discover.transport is not None:
                carried = library_facts(
                    discover.transport,
                    ids=(),
                    regions=(*config.segment.regions, WHOLE),
                    max_rank=discover.directions,
                    max_directions=discover.directions,
                    option="discover.transport",
                )
                found = tuple(
                    replace(candidate, label=fact.candidate.label)
                    for candidate, fact in zip(found, carried, strict=False)
                )
        case _:
            found = _expected(discover.method, config.segment.regions, discover.directions)
    products = estimated_products(discover, regions)
    space = getattr(discover, "space", "h")
    return DiscoveryWork(
        nodes,
        space=space,
        found=len(found),
        candidates=found,
        library=carried,
        products=products,
    )


def _expected(method: str, regions: Iterable[str], directions: int) -> tuple[Candidate, ...]:
    """What a method finds in an image where every region has all its directions."""
    return tuple(
        Candidate(region, rank, method) for region in regions for rank in range(directions)
    )


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


def _refuse_outside(
    timesteps: tuple[int, ...], nodes: tuple[int, ...], window: tuple[int, int]
) -> None:
    outside = sorted(set(nodes) - set(edited_nodes(timesteps, window)))
    if outside:
        raise ConfigProblem(
            f"edit.reach: directions found at timestep {timesteps[outside[0] - 1]} would be applied"
            f" there alone, and edit.window is {list(window)}; expected discover.timesteps inside"
        )


def step_shape(checkpoint: Checkpoint, space: str) -> tuple[int, int, int]:
    """(C, Y, X) of x_t, or of h: the channels of the last level, at its size."""
    if space == "x":
        return checkpoint.latent_shape
    channels = checkpoint.unet.config.get("block_out_channels", [64])
    side = max(1, checkpoint.latent_shape[1] >> (checkpoint.unet.levels - 1))
    return int(channels[-1]), side, side
