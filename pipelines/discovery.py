"""From the section `discover` to the loaded discover stage of a run that works image by image."""

from __future__ import annotations

from functools import partial

from lib.direction import Direction
from lib.directions.direction_reach import refuse_out_of_reach
from lib.directions.direction_table import read_library
from lib.discovery.localised import localised_directions
from lib.discovery.masked_jacobian import masked_jacobian
from lib.discovery.null_space import null_space_directions
from lib.discovery.region_problem import Search
from lib.discovery.shared_variation import ajive_directions, jive_directions
from lib.discovery.text_guided import TOWARDS_TARGET, text_directions
from lib.models.text_image import load_text_image
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from pipelines.config import RunConfig
from pipelines.discovery_config import (
    AjiveDiscovery,
    JacobianDiscovery,
    JiveDiscovery,
    LibraryDiscovery,
    LocalisedDiscovery,
    NoDiscovery,
    NullSpaceDiscovery,
    PullbackDiscovery,
    RegionDiscovery,
    TextDiscovery,
)
from pipelines.discovery_work import wanted_nodes
from pipelines.engine import Engine
from pipelines.jacobian_products import TEXT_ROUNDS
from pipelines.learned_editors import chosen_editors
from pipelines.library_fit import refuse_unknown_regions
from pipelines.reference_config import ReferenceDiscovery
from pipelines.reference_discovery import build_reference_discoverer
from tasks.discover import JacobianDiscoverer, Recipe, Stamp
from tasks.library import LibraryDiscoverer
from tasks.pullback import PullbackDiscoverer
from tasks.reference import ReferenceDiscoverer

Discoverer = JacobianDiscoverer | LibraryDiscoverer | PullbackDiscoverer | ReferenceDiscoverer

_RUN_KEYS = {"method", "space", "chunk", "products", "timesteps", "model", "transport"}
"""What a direction records in its own columns, or what does not shape it."""


def build_discoverer(config: RunConfig, engine: Engine) -> tuple[Discoverer, frozenset[int]]:
    """The discoverer, and the nodes at which it asks for x_t.

    Raises:
        ModelProblem: a text-image model cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    discover = config.discover
    if isinstance(discover, NoDiscovery):
        return LibraryDiscoverer(()), frozenset()
    if isinstance(discover, LibraryDiscovery):
        return _library(config, discover, engine), frozenset()
    nodes = wanted_nodes(engine.grid.timesteps, discover.timesteps, config.edit.window)
    if isinstance(discover, PullbackDiscovery):
        return _pullback(config, discover, engine, nodes[0]), frozenset(nodes)
    if isinstance(discover, ReferenceDiscovery):
        return build_reference_discoverer(config, discover, engine, nodes[0]), frozenset(nodes)
    if not isinstance(discover, RegionDiscovery | TextDiscovery):
        raise ConfigProblem(
            f"discover.method: {discover.method} learns from all images of a run; expected"
            " `pipeline: direction_library` with it"
        )
    found = JacobianDiscoverer(
        engine.denoiser,
        engine.grid,
        nodes=nodes,
        recipe=_recipe(discover, engine),
        stamp=Stamp(engine.model, config.model.h_layer, engine.h_norms, config.output.vector_dtype),
    )
    return found, frozenset(nodes)


def _recipe(discover: RegionDiscovery | TextDiscovery, engine: Engine) -> Recipe:
    """The method as a function of the Jacobian, with its name and options."""
    parameters = discover.model_dump(mode="json", exclude=_RUN_KEYS)
    if isinstance(discover, TextDiscovery):
        text = partial(
            text_directions,
            text_image=load_text_image(discover.model, engine.denoiser.device),
            texts=(discover.source, discover.target),
            null_rank=discover.null_rank,
            max_rounds=TEXT_ROUNDS,
        )
        return Recipe("text", text, parameters, sign_rule=TOWARDS_TARGET)
    search = Search(discover.directions, discover.tolerance, discover.max_rounds)
    contrasts = False
    match discover:
        case JacobianDiscovery():
            method = partial(masked_jacobian, search=search)
        case LocalisedDiscovery():
            method = partial(localised_directions, search=search, trade_off=discover.trade_off)
        case NullSpaceDiscovery():
            method = partial(null_space_directions, search=search, null_rank=discover.null_rank)
        case JiveDiscovery():
            contrasts = True
            method = partial(
                jive_directions,
                search=search,
                factor_rank=discover.factor_rank,
                joint_rank=discover.joint_rank,
                individual_rank=discover.individual_rank,
            )
        case AjiveDiscovery():
            contrasts = True
            method = partial(
                ajive_directions,
                search=search,
                factor_rank=discover.factor_rank,
                joint_rank=discover.joint_rank,
                individual_rank=discover.individual_rank,
            )
        case _:
            raise ConfigProblem(f"discover.method: {type(discover).__name__} is no method")
    return Recipe(
        discover.method,
        method,
        parameters,
        space=getattr(discover, "space", "h"),
        products=discover.products,
        chunk=discover.chunk,
        contrasts=contrasts,
    )


def _pullback(
    config: RunConfig, discover: PullbackDiscovery, engine: Engine, node: int
) -> PullbackDiscoverer:
    carried: tuple[Direction, ...] = ()
    if discover.transport is not None:
        carried = read_library(
            discover.transport,
            ids=(),
            regions=(*config.segment.regions, WHOLE),
            max_rank=discover.directions,
            max_directions=discover.directions,
            model=engine.model,
            h_layer=config.model.h_layer,
            h_shape=engine.denoiser.h_shape,
            latent_shape=engine.denoiser.latent_shape,
            option="discover.transport",
        )
        if any(d.space != "h" for d in carried):
            raise ConfigProblem("discover.transport: expected directions of h, found some of x")
    return PullbackDiscoverer(
        engine.denoiser,
        engine.grid,
        node=node,
        search=Search(
            discover.basis if carried else discover.directions,
            discover.tolerance,
            discover.max_rounds,
        ),
        chunk=discover.chunk,
        space=discover.space,
        carried=carried,
        parameters=discover.model_dump(
            mode="json", exclude=_RUN_KEYS if carried else _RUN_KEYS | {"basis"}
        ),
        model=engine.model,
        h_layer=config.model.h_layer,
        h_norms=engine.h_norms,
        vector_dtype=config.output.vector_dtype,
    )


def _library(config: RunConfig, discover: LibraryDiscovery, engine: Engine) -> LibraryDiscoverer:
    directions = read_library(
        discover.path,
        ids=discover.ids,
        regions=discover.regions or (*config.segment.regions, WHOLE),
        max_rank=discover.max_rank,
        max_directions=discover.max_directions,
        model=engine.model,
        h_layer=config.model.h_layer,
        h_shape=engine.denoiser.h_shape,
        latent_shape=engine.denoiser.latent_shape,
        optional=bool(chosen_editors(config)),
    )
    refuse_out_of_reach(directions, engine.grid, config.edit.window, config.edit.reach)
    refuse_unknown_regions([d.region for d in directions], config)
    return LibraryDiscoverer(directions)
