"""The evaluate stage of a run, with the models that it asks for."""

from __future__ import annotations

import torch

from lib.metrics.posterior_gap import PosteriorGap
from lib.metrics.scores import Scorer, load_directional, load_lpips, load_similarity
from lib.models.image_classifier import class_index, load_classifier
from lib.sampling.grid import nearest_node
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.evaluate_config import (
    AttributeChanges,
    DirectionalScore,
    LpipsScore,
    ScoreKind,
    SimilarityScore,
)
from pipelines.evaluation_models import refuse_unfit_models
from tasks.evaluate import Attributes, Evaluator
from tasks.filter_edits import EditFilter


def build_evaluator(config: RunConfig, engine: Engine) -> Evaluator:
    """Measures on the model's device, in batches as large as those of the edits.

    Raises:
        ModelProblem: a model of the section `evaluate` cannot be used.
        ConfigProblem: one does not fit the images, or lacks what is asked of it.
    """
    evaluate, device = config.evaluate, engine.denoiser.device
    refuse_unfit_models(evaluate, engine.denoiser.image_size)
    timesteps = engine.grid.timesteps
    nodes = sorted({nearest_node(timesteps, t) for t in evaluate.posterior_gap})
    return Evaluator(
        device=device,
        batch_size=config.edit.batch_size,
        scorers={
            name: load_score(evaluate.scores[name], device) for name in sorted(evaluate.scores)
        },
        attributes=load_attributes(evaluate.attributes, device) if evaluate.attributes else None,
        gap=PosteriorGap(engine.denoiser, engine.grid, nodes) if nodes else None,
        rules=evaluate.filters.parsed,
    )


def new_filter(config: RunConfig) -> EditFilter:
    """For one shard."""
    return EditFilter(drops=config.evaluate.filters.action == "drop")


def load_score(score: ScoreKind, device: torch.device) -> Scorer:
    """The model behind a score. Raises as `lib.metrics.scores`."""
    match score:
        case LpipsScore():
            return load_lpips(score.net, device)
        case SimilarityScore():
            return load_similarity(score.model, device)
        case DirectionalScore():
            return load_directional(score.model, score.source, score.target, device)


def load_attributes(attributes: AttributeChanges, device: torch.device) -> Attributes:
    """The classifier with the columns of the names. Raises as `lib.models.image_classifier`."""
    classifier = load_classifier(attributes.classifier, device)
    columns = {name: class_index(classifier, name) for name in attributes.names}
    return Attributes(classifier, columns)
