"""Providers of kind automatic: which region model they name, and whether it fits the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lib.files import storage
from lib.masks.cluster_names import NamedRegions, read_regions
from lib.models.checkpoint import weights_sha256
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.model_source import open_model
from pipelines.segment_config import Automatic, Classes
from pipelines.study_config import DatasetDiscovery

if TYPE_CHECKING:
    from lib.masks.automatic import AutomaticMasks
    from pipelines.engine import Engine


def automatic_fields(config: RunConfig, name: str, provider: Automatic) -> dict[str, Any]:
    """What the fingerprint says of the provider `name`: the model by content, and the clusters that
    each region's labels mean. Without torch.

    Raises:
        ConfigProblem: there is no such model, or it is of other weights, or has no such label.
    """
    model_sha256 = weights_sha256(open_model(config.model))
    regions = {
        region: source
        for region, source in config.segment.regions.items()
        if isinstance(source, Classes) and source.provider == name
    }
    found, clusters = _resolved(name, provider, regions, model_sha256)
    return {
        "kind": provider.kind,
        "min_component": provider.min_component,
        "model_sha256": found.sha256,
        "clusters": {region: list(numbers) for region, numbers in clusters.items()},
    }


def automatic_evaluations(config: RunConfig) -> int:
    """Network evaluations an image that the masks of all automatic providers take; where all images
    are learned from together there are no masks.
    """
    if isinstance(config.discover, DatasetDiscovery):
        return 0
    return sum(
        len(read_regions(provider.path).model.study.timesteps)
        for provider in config.segment.providers.values()
        if isinstance(provider, Automatic)
    )


def name_by_clusters(fields: dict[str, Any], config: RunConfig) -> None:
    """Put `automatic_fields` in the place of automatic providers in the section `segment`."""
    for name, provider in config.segment.providers.items():
        if isinstance(provider, Automatic):
            fields["providers"][name] = automatic_fields(config, name, provider)


def build_automatic(
    config: RunConfig,
    name: str,
    provider: Automatic,
    regions: Mapping[str, Classes],
    engine: Engine,
) -> AutomaticMasks:
    """The provider, sharing the run's network; raises as `automatic_fields`."""
    from lib.masks.automatic import AutomaticMasks
    from pipelines.region_model import feature_reader

    found, clusters = _resolved(name, provider, regions, engine.model)
    study = found.model.study
    reader = feature_reader(config, engine.denoiser, study.timesteps, study.blocks)
    return AutomaticMasks(reader, found.model, clusters, min_component=provider.min_component)


def _resolved(
    name: str, provider: Automatic, regions: Mapping[str, Classes], model_sha256: str
) -> tuple[NamedRegions, Mapping[str, tuple[int, ...]]]:
    try:
        found = read_regions(provider.path)
    except ConfigProblem as error:
        raise ConfigProblem(f"segment.providers.{name}.path: {error}") from error
    if found.model.study.model != model_sha256:
        raise ConfigProblem(
            f"segment.providers.{name}: expected regions learned with this run's weights"
            f" ({model_sha256[:16]}), those of {storage.redact(found.url)} were learned with"
            f" {found.model.study.model[:16]}"
        )
    clusters: dict[str, tuple[int, ...]] = {}
    for region, source in regions.items():
        try:
            clusters[region] = found.resolved(source.labels)
        except ConfigProblem as error:
            raise ConfigProblem(f"segment.regions.{region}.labels: {error}") from error
    return found, clusters
