"""What a run will cost, from the config and the inputs alone: no torch, no ray, no model in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.models.checkpoint import Checkpoint
from lib.problems import ConfigProblem
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import edited_nodes, grid_timesteps, nearest_node, renoised_nodes
from pipelines.automatic_regions import automatic_evaluations
from pipelines.config import RunConfig
from pipelines.decoding_cost import (
    mean_edit_evaluations,
    reconstruction_evaluations,
    search_evaluations,
)
from pipelines.discovery_work import DiscoveryWork, discovery_work
from pipelines.input_sizes import input_sizes
from pipelines.inputs import ShardInput
from pipelines.learned_editors import check_rectifier
from pipelines.library_fit import refuse_unfit
from pipelines.mask_models import check_networks, networks
from pipelines.model_source import conditioning_of, open_model
from pipelines.output_sizes import (
    direction_bytes,
    edit_bytes,
    expected_output,
    statistics_bytes,
)
from pipelines.plan_counts import Plan
from pipelines.planned_edits import planned_choices, refuse_no_sums
from pipelines.stored_runs import further_nodes, latent_bytes, latent_needs
from pipelines.study_config import DatasetDiscovery

__all__ = ["Plan", "counted_plan", "make_plan"]


def make_plan(config: RunConfig, inputs: Sequence[ShardInput]) -> Plan:
    """Look at the inputs, and count as `counted_plan`, which says what is raised."""
    sizes = input_sizes(config, inputs)
    return counted_plan(config, len(inputs), round(sum(sizes.images(s.name for s in inputs))))


def counted_plan(config: RunConfig, shards: int, images: int) -> Plan:
    """Check the config against the checkpoint and count, for so many images in so many shards.

    Raises:
        ModelProblem: the checkpoint, a classifier, a text model or a mask network cannot be used.
        ConfigProblem: the grid, the window, the library or the plan of edits do not fit.
    """
    checkpoint = open_model(config.model)
    timesteps = grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )
    passes = conditioning_of(config.model).passes
    if config.pipeline == "region_model":
        return _plan_regions(config, checkpoint, shards, images)
    if config.pipeline == "store_latents":
        return _plan_latents(config, checkpoint, timesteps, shards, images)
    work = discovery_work(config, timesteps)
    refuse_unfit(config, checkpoint, work.library, work.editors)
    rectifier_evaluations = check_rectifier(config, checkpoint)
    if config.pipeline == "direction_library":
        return _plan_library(config, checkpoint, timesteps, work, shards, images)
    if config.edit.method == "sdedit":
        return _plan_sdedit(config, checkpoint, timesteps, shards, images)
    nodes = edited_nodes(timesteps, config.edit.window)
    chosen = planned_choices(config, work.candidates)
    refuse_no_sums(chosen, work)
    choices = len(chosen)
    edits = min(choices, config.edit.plan.sample or choices)
    calls = step_evaluations(config.invert.method)
    each = mean_edit_evaluations(config, timesteps, nodes, work, chosen)
    return Plan(
        shards=shards,
        images=images,
        edits=edits,
        sampled_from=choices,
        directions=work.found,
        inversion=rectifier_evaluations * _inversion(config, timesteps),
        reading=automatic_evaluations(config),
        decoding=passes * rectifier_evaluations * round(calls * nodes[0] + each * edits)
        + search_evaluations(config, timesteps, work),
        jacobian_products=work.products,
        timesteps=(timesteps[nodes[0] - 1], timesteps[nodes[-1] - 1]),
        output=expected_output(
            shards,
            images,
            rows=edits,
            edits=edits * edit_bytes(config, checkpoint),
            directions=work.found * direction_bytes(config, checkpoint, work),
            latents=latent_bytes(config, checkpoint, timesteps),
        ),
        mask_networks=_mask_networks(config),
        measuring=_measuring(config, timesteps),
        window_found=config.edit.window_rule is not None,
    )


def _measuring(config: RunConfig, timesteps: tuple[int, ...]) -> int:
    """Of the evaluate stage."""
    nodes = {nearest_node(timesteps, t) for t in config.evaluate.posterior_gap}
    return len(nodes) * conditioning_of(config.model).passes


def _plan_sdedit(
    config: RunConfig,
    checkpoint: Checkpoint,
    timesteps: tuple[int, ...],
    shards: int,
    images: int,
) -> Plan:
    nodes = renoised_nodes(timesteps, config.edit.sdedit.timesteps)
    edits = len(nodes) * config.edit.sdedit.seeds
    return Plan(
        shards=shards,
        images=images,
        edits=edits,
        sampled_from=edits,
        decoding=conditioning_of(config.model).passes
        * check_rectifier(config, checkpoint)
        * sum(nodes)
        * config.edit.sdedit.seeds,
        timesteps=(timesteps[max(nodes) - 1], timesteps[0]),
        output=expected_output(
            shards, images, rows=edits, edits=edits * edit_bytes(config, checkpoint)
        ),
        measuring=_measuring(config, timesteps),
    )


def _plan_library(
    config: RunConfig,
    checkpoint: Checkpoint,
    timesteps: tuple[int, ...],
    work: DiscoveryWork,
    shards: int,
    images: int,
) -> Plan:
    looks = 0 if getattr(config.discover, "capture", "exact") == "inversion" else len(work.nodes)
    return Plan(
        shards=shards,
        images=images,
        directions=work.found,
        inversion=_inversion(config, timesteps),
        reading=conditioning_of(config.model).passes * looks + automatic_evaluations(config),
        decoding=reconstruction_evaluations(config, timesteps)
        + search_evaluations(config, timesteps, work),
        jacobian_products=work.products,
        timesteps=(timesteps[max(work.nodes) - 1], timesteps[min(work.nodes) - 1]),
        output=expected_output(
            shards,
            images,
            directions=work.found * direction_bytes(config, checkpoint, work),
            latents=latent_bytes(config, checkpoint, timesteps),
            statistics=statistics_bytes(checkpoint, work, shards, images),
        ),
        mask_networks=_mask_networks(config),
    )


def _mask_networks(config: RunConfig) -> tuple[str, ...]:
    """Those that the regions come from, where regions are used at all; refuses what a run would."""
    if isinstance(config.discover, DatasetDiscovery):
        return ()
    check_networks(config.segment)
    return tuple(networks(config.segment))


def _plan_latents(
    config: RunConfig,
    checkpoint: Checkpoint,
    timesteps: tuple[int, ...],
    shards: int,
    images: int,
) -> Plan:
    top = timesteps[latent_needs(config, timesteps).last - 1]
    return Plan(
        shards=shards,
        images=images,
        inversion=_inversion(config, timesteps),
        decoding=reconstruction_evaluations(config, timesteps),
        timesteps=(top, top),
        output=expected_output(shards, images, latents=latent_bytes(config, checkpoint, timesteps)),
    )


def _plan_regions(config: RunConfig, checkpoint: Checkpoint, shards: int, images: int) -> Plan:
    fit = config.region_model
    late = [t for t in fit.timesteps if t >= checkpoint.num_train_timesteps]
    if late:
        raise ConfigProblem(
            f"region_model.timesteps: expected timesteps below {checkpoint.num_train_timesteps},"
            f" got {late}"
        )
    channels = checkpoint.unet.config.get("block_out_channels", [64])
    entries = len(fit.timesteps) * max(1, len(fit.blocks)) * int(channels[-1]) + 3
    return Plan(
        shards=shards,
        images=images,
        reading=len(fit.timesteps),
        timesteps=(max(fit.timesteps), min(fit.timesteps)),
        output=expected_output(shards, images, statistics=shards * fit.coreset * entries * 4),
    )


def _inversion(config: RunConfig, timesteps: tuple[int, ...]) -> int:
    """Network evaluations an image; none where latents are read."""
    invert = config.invert
    if invert.latents is not None:
        return 0
    needs = latent_needs(config, timesteps)
    top = max(needs.last, *needs.keep, *further_nodes(invert, timesteps), 0)
    passes = conditioning_of(config.model).passes
    return passes * inversion_evaluations(invert.method, top, refinements=invert.refinements)
