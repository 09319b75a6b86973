"""Whether a library's directions can be applied by a run, from its tables and the checkpoint's
files alone: what the run would refuse when it has loaded the model, `plan` refuses without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.directions.direction_reach import refuse_out_of_reach
from lib.directions.library_facts import LibraryFact, refuse_foreign
from lib.models.checkpoint import Checkpoint, weights_sha256
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from lib.sampling.grid import make_grid
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery
from pipelines.discovery_work import step_shape


def refuse_unfit(config: RunConfig, checkpoint: Checkpoint, facts: Sequence[LibraryFact]) -> None:
    """Refuse directions read from a library that this run cannot apply.

    Raises:
        ConfigProblem: one belongs to another model, layer or shape of h, to a region that the run
            does not define, or lies outside the window.
    """
    if not facts:
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
    if not applied:
        if any(fact.space != "h" for fact in facts):
            raise ConfigProblem(f"{option}: expected directions of h, found some of x")
        return
    scheduler = checkpoint.scheduler_config
    grid = make_grid(scheduler, config.grid.num_steps, config.grid.spacing)
    refuse_out_of_reach(facts, grid, config.edit.window, config.edit.reach)
    refuse_unknown_regions([fact.candidate.region for fact in facts], config)


def refuse_unknown_regions(regions: Sequence[str], config: RunConfig) -> None:
    """Refuse directions of regions that the run does not define.

    Raises:
        ConfigProblem: there are some.
    """
    unknown = sorted({*regions} - {*config.segment.regions, WHOLE})
    if unknown:
        raise ConfigProblem(
            f"discover.ids: expected directions of regions in segment.regions, got some of"
            f" {unknown}; segment.regions defines {sorted(config.segment.regions)}"
        )
