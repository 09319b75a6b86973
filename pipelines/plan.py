"""What a run will cost, from the config and the inputs alone: no torch, no ray, no model in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lib.models.checkpoint import Checkpoint
from lib.problems import ConfigProblem
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import edited_nodes, grid_timesteps, nearest_node, renoised_nodes
from pipelines.automatic_regions import automatic_evaluations
from pipelines.config import RunConfig
from pipelines.decoding_cost import edit_evaluations, reconstruction_evaluations, search_evaluations
from pipelines.discovery_work import DiscoveryWork, discovery_work, step_shape
from pipelines.inputs import ShardInput
from pipelines.library_fit import refuse_unfit
from pipelines.mask_models import check_networks, networks
from pipelines.model_source import conditioning_of, open_model
from pipelines.number_texts import size
from pipelines.plan_sizes import edit_bytes, estimated_images
from pipelines.planned_edits import planned_choices
from pipelines.stored_runs import further_nodes, latent_bytes, latent_needs
from pipelines.study_config import DatasetDiscovery


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts an image, and estimated sizes."""

    shards: int
    images: int
    """Estimated from the first readable shard and the sizes of a few."""
    timesteps: tuple[int, int]
    """The highest and the lowest that is edited, or studied where nothing is edited."""
    output_bytes: int
    """Estimated, of the whole run."""
    edits: int = 0
    """An image, at most; 0 where nothing is edited."""
    sampled_from: int = 0
    """Edits of an image before `edit.plan.sample` of them are chosen."""
    directions: int = 0
    """Found in an image; 0 where they are read, or learned from all images."""
    inversion: int = 0
    """Network evaluations; with guidance two an estimate of the noise, here and below."""
    reading: int = 0
    """Network evaluations that read h or features."""
    decoding: int = 0
    """Network evaluations, a decoder-only pass counted as one."""
    jacobian_products: int = 0
    """Forward and reverse products of the decoder half together, estimated; 0 for a library."""
    mask_networks: tuple[str, ...] = ()
    """Providers whose networks see every image once."""
    measuring: int = 0
    """Network evaluations of the posterior gap."""
    window_found: bool = False
    """Whether the run finds the lowest timestep; counted is for the whole of `edit.window`."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image, without the Jacobian's products."""
        return self.inversion + self.reading + self.decoding + self.measuring

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, ready to print."""
        high, low = self.timesteps
        what = "edited" if self.edits else "studied"
        stops = f"inversion stops at {high}" if self.inversion else "no inversion"
        parts = [("inversion", self.inversion), ("reading features", self.reading)]
        parts += [("decoding", self.decoding), ("evaluating", self.measuring)]
        shares = ", ".join(f"{count:,} {name}" for name, count in parts if count)
        by_rule = " at the lowest, found by the run" if self.window_found else ""
        steps = (f"{what} timesteps", f"{high} down to {low}{by_rule}; {stops}")
        if self.evaluations == self.inversion:  # it only inverts
            steps = ("inverted up to timestep", f"{high}")
        rows = [("images (estimate)", f"{self.images:,}"), steps]
        if self.edits:
            of = f", chosen from {self.sampled_from:,}" if self.sampled_from > self.edits else ""
            rows.append(("edits an image, at most", f"{self.edits:,}{of}"))
            rows.append(("edits in all (estimate)", f"{self.edits * self.images:,}"))
        if self.directions:
            rows.append(("directions an image, at most", f"{self.directions:,}"))
        if self.mask_networks:
            rows.append(("mask networks, a pass each an image", ", ".join(self.mask_networks)))
        return [
            *rows,
            ("network evaluations an image", f"{self.evaluations:,} ({shares})"),
            ("network evaluations in all (estimate)", f"{self.evaluations * self.images:,}"),
            ("Jacobian products an image (estimate)", f"{self.jacobian_products:,}"),
            ("output (estimate)", size(self.output_bytes)),
        ]


def make_plan(config: RunConfig, inputs: Sequence[ShardInput]) -> Plan:
    """Check the config against the checkpoint and count.

    Raises:
        ModelProblem: the checkpoint, a classifier, a text model or a mask network cannot be used.
        ConfigProblem: the grid, the window, the library or the plan of edits do not fit.
    """
    checkpoint = open_model(config.model)
    timesteps = grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )
    passes = conditioning_of(config.model).passes
    images = estimated_images(config, inputs)
    if config.pipeline == "region_model":
        return _plan_regions(config, checkpoint, len(inputs), images)
    if config.pipeline == "store_latents":
        return _plan_latents(config, checkpoint, timesteps, len(inputs), images)
    work = discovery_work(config, timesteps)
    refuse_unfit(config, checkpoint, work.library)
    if config.pipeline == "direction_library":
        return _plan_library(config, checkpoint, timesteps, work, len(inputs), images)
    if config.edit.method == "sdedit":
        return _plan_sdedit(config, checkpoint, timesteps, len(inputs), images)
    nodes = edited_nodes(timesteps, config.edit.window)
    choices = len(planned_choices(config, work.candidates))
    edits = min(choices, config.edit.plan.sample or choices)
    calls = step_evaluations(config.invert.method)
    return Plan(
        shards=len(inputs),
        images=images,
        edits=edits,
        sampled_from=choices,
        directions=work.found,
        inversion=_inversion(config, timesteps),
        reading=automatic_evaluations(config),
        decoding=passes * (calls * nodes[0] + edit_evaluations(config, nodes, work) * edits)
        + search_evaluations(config, timesteps, work),
        jacobian_products=work.products,
        timesteps=(timesteps[nodes[0] - 1], timesteps[nodes[-1] - 1]),
        output_bytes=images * edits * edit_bytes(config, checkpoint)
        + images * latent_bytes(config, checkpoint, timesteps),
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
        decoding=conditioning_of(config.model).passes * sum(nodes) * config.edit.sdedit.seeds,
        timesteps=(timesteps[max(nodes) - 1], timesteps[0]),
        output_bytes=images * edits * edit_bytes(config, checkpoint),
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
    step_numbers = prod(step_shape(checkpoint, work.space)) * len(work.nodes)
    rows = images * work.found
    if work.kept_rows:  # of every shard, and no more than it has images
        rows = shards * min(work.kept_rows, -(-images // max(1, shards)) * work.row_copies)
    looks = 0 if getattr(config.discover, "capture", "exact") == "inversion" else len(work.nodes)
    value_bytes = work.row_bytes or {"float16": 2, "float32": 4}[config.output.vector_dtype]
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
        output_bytes=rows * step_numbers * value_bytes
        + images * latent_bytes(config, checkpoint, timesteps),
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
        output_bytes=images * latent_bytes(config, checkpoint, timesteps),
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
        output_bytes=shards * fit.coreset * entries * 4,
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
