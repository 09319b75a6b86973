"""From a config to the loaded stages: the one place where options meet models."""

from __future__ import annotations

from dataclasses import dataclass

from lib.editing.edit_plan import planned
from lib.editing.region_guard import RegionGuard
from lib.editing.x_guidance import Along, Guidance
from lib.sampling.grid import edited_nodes
from pipelines.config import RunConfig
from pipelines.discovery import Discoverer, build_discoverer
from pipelines.discovery_work import discovery_work
from pipelines.edit_plan_config import plan_entries
from pipelines.engine import Engine
from pipelines.evaluation_stage import build_evaluator
from pipelines.inversions import Inversions, LatentStore
from pipelines.learned_loading import load_editors, load_rectification
from pipelines.mask_providers import build_segmenter
from pipelines.planned_edits import planned_choices, refuse_no_sums
from pipelines.samplers import build_sampler
from pipelines.stored_runs import further_nodes
from tasks.edit import Editor
from tasks.evaluate import Evaluator
from tasks.invert import Inverter
from tasks.learned import EditorProvider
from tasks.reconstruct import Reconstructor
from tasks.segment import Segmenter


@dataclass(frozen=True, slots=True)
class Stages:
    """invert -> segment -> discover -> edit -> evaluate, loaded and ready."""

    image_size: int
    invert: Inversions
    segment: Segmenter
    discover: Discoverer | EditorProvider
    edit: Editor
    evaluate: Evaluator


def build_stages(config: RunConfig, engine: Engine) -> Stages:
    """Make the stages, with the models that they need beside the diffusion model.

    Raises:
        ModelProblem: one of those cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    work = discovery_work(config, engine.grid.timesteps)
    # Refuse what the plan would refuse.
    refuse_no_sums(planned_choices(config, work.candidates), work)
    nodes = edited_nodes(engine.grid.timesteps, config.edit.window)
    discover, kept = build_discoverer(config, engine)
    editors = load_editors(config, engine)
    return Stages(
        image_size=engine.denoiser.image_size,
        invert=build_inversions(config, engine, last=nodes[0], keep=kept),
        segment=build_segmenter(config, engine),
        discover=EditorProvider(editors, discover) if editors else discover,
        edit=build_editor(config, engine),
        evaluate=build_evaluator(config, engine),
    )


def build_editor(config: RunConfig, engine: Engine) -> Editor:
    """The edits that the config asks for."""
    edit = config.edit
    guided = Guidance(edit.guidance_scale, edit.guidance_steps, edit.guidance_reach)
    guard = edit.guard
    return Editor(
        engine.denoiser,
        engine.grid,
        window=edit.window,
        injection=edit.injection,
        sampler=build_sampler(config),
        plan=planned(plan_entries(edit.plan, edit.strengths), edit.plan.sample),
        batch_size=edit.batch_size,
        h_norms=engine.h_norms,
        reach=edit.reach,
        x_edit=guided if edit.x_edit == "guidance" else Along(),
        guard=None if guard is None else RegionGuard(guard.dilation, guard.feather),
        rectify=load_rectification(config, engine),
    )


def build_inversions(
    config: RunConfig,
    engine: Engine,
    *,
    last: int,
    keep: frozenset[int],
    observe: frozenset[int] = frozenset(),
) -> Inversions:
    """The invert stages of a run, which may store what they find or read what was stored."""
    stores = config.output.latents != "none"
    timesteps = engine.grid.timesteps
    further = further_nodes(config.invert, timesteps) if stores else frozenset()
    source = {
        "model": engine.model,
        "image_size": engine.denoiser.image_size,
        "fit": config.input.fit,
        "grid": list(timesteps),
        "invert": config.invert.model_dump(mode="json", exclude={"latents", "keep", "report"}),
    }
    return Inversions(
        inverter=build_inverter(config, engine, last=last, keep=keep | further, observe=observe),
        grid=engine.grid,
        sampler=build_sampler(config),
        last=last,
        keep=keep,
        device=engine.denoiser.device,
        store=LatentStore(config.output.latents, source),
        reads=config.invert.latents is not None,
        reconstruct=_reconstructor(config, engine, last) if config.invert.report else None,
    )


def build_inverter(
    config: RunConfig,
    engine: Engine,
    *,
    last: int,
    keep: frozenset[int],
    observe: frozenset[int] = frozenset(),
) -> Inverter:
    """Inversion to node `last`, or the highest of those whose x_t is kept; h at `observe`."""
    return Inverter(
        engine.denoiser,
        engine.grid,
        last=last,
        keep=keep,
        observe=observe,
        sampler=build_sampler(config),
        batch_size=config.invert.batch_size,
        rectify=load_rectification(config, engine),
    )


def _reconstructor(config: RunConfig, engine: Engine, last: int) -> Reconstructor:
    return Reconstructor(
        engine.denoiser,
        engine.grid,
        sampler=build_sampler(config),
        last=last,
        batch_size=config.invert.batch_size,
        rectify=load_rectification(config, engine),
    )
