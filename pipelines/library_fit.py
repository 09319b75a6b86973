"""Whether a library's directions can be applied by a run, from its tables and the checkpoint's
files alone: what the run would refuse when it has loaded the model, `plan` refuses without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.directions.direction_reach import refuse_out_of_reach
from lib.directions.library_facts import LibraryFact, refuse_foreign
from lib.editors.editor_record import NETWORK_SPACE
from lib.models.checkpoint import Checkpoint, weights_sha256
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from lib.sampling.grid import Grid, make_grid
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery
from pipelines.discovery_work import step_shape


def refuse_unfit(
    config: RunConfig,
    checkpoint: Checkpoint,
    facts: Sequence[LibraryFact],
    editors: Sequence[LibraryFact] = (),
) -> None:
    """Refuse directions read from a library, and learned editors, that this run cannot apply.

    Raises:
        ConfigProblem: one belongs to another model, layer or shape of h, to a region that the run
            does not define, or lies outside the window.
    """
    if not facts and not editors:
        return
    applied = isinstance(config.discover, LibraryDiscovery)
    option = "discover.path" if applied else "discover.transport"
    refuse_foreign(
        facts,
        model=weights_sha256(checkpoint),
        h_layer=config.model.h_layer,
        h_shape=step_shape(checkpoint, "h"),
        latent_shape=step_shape(checkpoint, "x"),
        option=option,
    )
    scheduler = checkpoint.scheduler_config
    grid = make_grid(scheduler, config.grid.num_steps, config.grid.spacing)
    if editors:
        _refuse_unfit_editors(config, checkpoint, editors, grid)
    if not applied:
        if any(fact.space != "h" for fact in facts):
            raise ConfigProblem(f"{option}: expected directions of h, found some of x")
        return
    refuse_out_of_reach(facts, grid, config.edit.window, config.edit.reach)
    refuse_unknown_regions([fact.candidate.region for fact in facts], config)


def _refuse_unfit_editors(
    config: RunConfig, checkpoint: Checkpoint, editors: Sequence[LibraryFact], grid: Grid
) -> None:
    refuse_foreign(
        [fact for fact in editors if fact.shape or fact.space == NETWORK_SPACE],
        model=weights_sha256(checkpoint),
        h_layer=config.model.h_layer,
        h_shape=step_shape(checkpoint, "h"),
        latent_shape=step_shape(checkpoint, "x"),
        option="learned",
    )
    refuse_out_of_reach(editors, grid, config.edit.window)
    networks = [fact for fact in editors if fact.space == NETWORK_SPACE]
    if networks and config.model.guidance_scale > 1:
        raise ConfigProblem(
            f"model.guidance_scale: {networks[0].type} {networks[0].id} changes the network itself,"
            " which needs a model without guidance; expected 1"
        )
    refuse_unknown_regions([fact.candidate.region for fact in editors], config, "learned")


def refuse_unknown_regions(
    regions: Sequence[str], config: RunConfig, option: str = "discover.ids"
) -> None:
    """Refuse directions of regions that the run does not define.

    Raises:
        ConfigProblem: there are some.
    """
    unknown = sorted({*regions} - {*config.segment.regions, WHOLE})
    if unknown:
        raise ConfigProblem(
            f"{option}: expected directions of regions in segment.regions, got some of"
            f" {unknown}; segment.regions defines {sorted(config.segment.regions)}"
        )
