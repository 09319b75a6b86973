"""From a config to the loaded stages of a run that edits nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lib.discovery.statistics_files import Study
from lib.models.image_classifier import Classifier, class_index, load_classifier
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.discovery import Discoverer, build_discoverer
from pipelines.discovery_work import wanted_nodes
from pipelines.engine import Engine
from pipelines.inversions import Inversions
from pipelines.mask_providers import build_segmenter
from pipelines.stages import build_inversions
from pipelines.stored_runs import latent_needs
from pipelines.study_config import DatasetDiscovery, FieldLabel, SupervisedDiscovery
from tasks.label import ClassSource, FieldSource, Labeller
from tasks.observe import CaptureReader, Observer
from tasks.segment import Segmenter


@dataclass(frozen=True, slots=True)
class FindingStages:
    """invert -> segment -> discover."""

    image_size: int
    invert: Inversions
    segment: Segmenter
    discover: Discoverer
    evaluations: int
    """Network evaluations an image, without products of the Jacobian."""


@dataclass(frozen=True, slots=True)
class LearningStages:
    """invert -> observe -> label."""

    image_size: int
    invert: Inversions
    observe: Observer | CaptureReader
    label: Labeller
    study: Study

    @property
    def evaluations(self) -> int:
        """Network evaluations an image."""
        return self.invert.evaluations + self.observe.evaluations


def build_finding_stages(config: RunConfig, engine: Engine) -> FindingStages:
    """Make the stages that find directions in every image.

    Raises:
        ModelProblem: a model beside the diffusion model cannot be used.
        ConfigProblem: the config asks for what this model cannot do.
    """
    discover, nodes = build_discoverer(config, engine)
    last = latent_needs(config, engine.grid.timesteps).last
    invert = build_inversions(config, engine, last=last, keep=nodes)
    return FindingStages(
        image_size=engine.denoiser.image_size,
        invert=invert,
        segment=build_segmenter(config, engine),
        discover=discover,
        evaluations=invert.evaluations + engine.denoiser.passes * len(nodes),
    )


def build_learning_stages(
    config: RunConfig, discover: DatasetDiscovery, engine: Engine
) -> LearningStages:
    """Make the stages that learn from all images, with a classifier if labels need one; raises as
    `build_finding_stages`.
    """
    nodes = wanted_nodes(engine.grid.timesteps, discover.timesteps, config.edit.window)
    timesteps = tuple(engine.grid.timestep(node) for node in nodes)
    captured = discover.capture == "inversion"
    observer = Observer(engine.denoiser, timesteps=timesteps, batch_size=config.invert.batch_size)
    return LearningStages(
        image_size=engine.denoiser.image_size,
        invert=build_inversions(
            config,
            engine,
            last=max(nodes),
            keep=frozenset(nodes),
            observe=frozenset(nodes) if captured else frozenset(),
        ),
        observe=CaptureReader(timesteps) if captured else observer,
        label=_labeller(config, discover, engine),
        study=Study(
            method=discover.method,
            parameters=discover.model_dump(
                mode="json", exclude={"method", "timesteps", "classifier"}
            ),
            timesteps=timesteps,
            h_norms=tuple(engine.h_norms[t] for t in timesteps),
            h_shape=engine.denoiser.h_shape,
            h_layer=config.model.h_layer,
            model=engine.model,
            vector_dtype=config.output.vector_dtype,
        ),
    )


def _labeller(config: RunConfig, discover: DatasetDiscovery, engine: Engine) -> Labeller:
    labels: dict[str, FieldSource | ClassSource] = {}
    classifier: Classifier | None = None
    if isinstance(discover, SupervisedDiscovery):
        if discover.classifier is not None:
            classifier = _classifier(discover.classifier, engine)
        for name, label in discover.labels.items():
            if isinstance(label, FieldLabel):
                labels[name] = FieldSource(label.field)
            elif classifier is not None:
                labels[name] = ClassSource(_column(classifier, label.output, name))
    return Labeller(labels, classifier=classifier, batch_size=config.invert.batch_size)


def _classifier(path: str, engine: Engine) -> Classifier:
    size = engine.denoiser.image_size
    if path == "embedded" and size != 64:
        raise ConfigProblem(
            f"discover.classifier: the embedded regressor reads images of 64 pixels, and this"
            f" model makes images of {size}; expected a transformers folder"
        )
    return load_classifier(path, engine.denoiser.device)


def _column(classifier: Classifier, output: int | str, label: str) -> int:
    if isinstance(output, str):
        return class_index(classifier, output)
    if not 0 <= output < len(classifier.names):
        raise ConfigProblem(
            f"discover.labels.{label}.class: expected an index below {len(classifier.names)}, the"
            f" number of the classifier's outputs, got {output}"
        )
    return output
