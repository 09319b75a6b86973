"""The networks of providers, as far as they are known without torch: their classes, the hashes that
stand for them in the fingerprint, where they lie, and what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.masks.class_names import numbers_of
from lib.models.transformers_folder import (
    class_names,
    mask_generator_sha256,
    open_mask_generator,
    open_segmenter,
    segmenter_sha256,
)
from lib.problems import ConfigProblem
from pipelines.segment_config import (
    Automatic,
    Classes,
    MaskGeneration,
    Provider,
    Segment,
    Semantic,
)


def semantic_numbers(
    provider: Semantic, name: str, regions: dict[str, Classes]
) -> dict[str, tuple[int, ...]]:
    """Region -> numbers of its classes in the network's own count.

    Raises:
        ModelProblem: the network's folder cannot be used.
        ConfigProblem: it has not the classes that a region asks for.
    """
    names = class_names(open_segmenter(provider.model))
    found: dict[str, tuple[int, ...]] = {}
    for region, source in regions.items():
        try:
            found[region] = numbers_of(source.labels, names, unite=provider.unite)
        except ValueError as error:
            raise ConfigProblem(
                f"segment.regions.{region}.labels: of the network of segment.providers.{name},"
                f" {error}"
            ) from error
    return found


def check_networks(segment: Segment) -> None:
    """Refuse what can be refused before a network is loaded; raises as `semantic_numbers`."""
    for name, provider in segment.providers.items():
        if isinstance(provider, Semantic):
            semantic_numbers(provider, name, classes_of(segment, name))
        elif isinstance(provider, MaskGeneration):
            open_mask_generator(provider.model)


def classes_of(segment: Segment, provider: str) -> dict[str, Classes]:
    """The regions that are classes of a provider."""
    return {
        region: source
        for region, source in segment.regions.items()
        if isinstance(source, Classes) and source.provider == provider
    }


def networks(segment: Segment) -> list[str]:
    """Names of the providers that run a network over every image, once, sorted."""
    kinds = (Semantic, MaskGeneration)
    return sorted(name for name, p in segment.providers.items() if isinstance(p, kinds))


def name_by_content(fields: dict[str, Any], segment: Segment) -> None:
    """Put hashes in the place of paths in the dumped section `fields`; raises as
    `check_networks`.
    """
    check_networks(segment)
    for name, provider in segment.providers.items():
        if isinstance(provider, Semantic):
            _replace(fields["providers"][name], "model", segmenter_sha256(provider.model))
        elif isinstance(provider, MaskGeneration):
            _replace(fields["providers"][name], "model", mask_generator_sha256(provider.model))


def located(segment: Segment, absolute: Callable[[str], str]) -> Segment:
    """The section with absolute paths: workers do not share the folder of the driver."""
    moved: dict[str, Provider] = {}
    for name, provider in segment.providers.items():
        if isinstance(provider, Semantic | MaskGeneration):
            moved[name] = provider.model_copy(update={"model": absolute(provider.model)})
        elif isinstance(provider, Automatic):
            moved[name] = provider.model_copy(update={"path": absolute(provider.path)})
    return segment.model_copy(update={"providers": segment.providers | moved}) if moved else segment


def _replace(fields: dict[str, Any], key: str, sha256: str) -> None:
    del fields[key]
    fields[f"{key}_sha256"] = sha256
