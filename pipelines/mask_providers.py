"""From the section `segment` to loaded providers of masks, and the stage that asks them."""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

from lib.masks.mask_generation import GeneratedMasks, Place
from lib.masks.provider import MaskProvider
from lib.masks.semantic import SemanticMasks
from lib.models.transformers_folder import open_mask_generator, open_segmenter
from lib.problems import ConfigProblem
from pipelines.automatic_regions import build_automatic
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.file_masks import own_masks, shared_files
from pipelines.mask_models import semantic_numbers
from pipelines.segment_config import (
    Automatic,
    Classes,
    LabelMap,
    MaskGeneration,
    PartFiles,
    Prompt,
    Provider,
    Semantic,
    Source,
)
from tasks.segment import Segmenter


def build_segmenter(
    config: RunConfig, engine: Engine, only: Collection[str] | None = None
) -> Segmenter:
    """The segment stage, with the models of all providers that it needs on the engine's device;
    with `only` for those regions alone.

    Raises:
        ModelProblem: a provider's model cannot be used.
        ConfigProblem: it has not the classes that a region asks for.
    """
    segment = config.segment
    regions = {n: s for n, s in segment.regions.items() if only is None or n in only}
    return Segmenter(
        list(regions),
        build_providers(config, engine, regions),
        batch_size=config.invert.batch_size,
        dilation=segment.dilation,
        min_area=segment.min_area,
        max_area=segment.max_area,
    )


def build_providers(
    config: RunConfig, engine: Engine, regions: dict[str, Source]
) -> list[MaskProvider]:
    """Those that `regions` come from: side files and boxes first, then by the config's order."""
    size, max_pixels = engine.denoiser.image_size, config.input.max_pixels
    found = own_masks(regions, size=size, max_pixels=max_pixels)
    for name, provider in config.segment.providers.items():
        classes = {
            n: s for n, s in regions.items() if isinstance(s, Classes) and s.provider == name
        }
        prompts = {n: s for n, s in regions.items() if isinstance(s, Prompt) and s.provider == name}
        if classes:
            found.append(_of_classes(name, provider, classes, config, engine))
        if prompts:
            found.append(_of_places(name, provider, prompts, engine))
    return found


def _of_classes(
    name: str,
    provider: Provider,
    regions: dict[str, Classes],
    config: RunConfig,
    engine: Engine,
) -> MaskProvider:
    match provider:
        case PartFiles() | LabelMap():
            return shared_files(provider, regions, max_pixels=config.input.max_pixels)
        case Semantic():
            numbers = semantic_numbers(provider, name, regions)
            return SemanticMasks(open_segmenter(provider.model), numbers, engine.denoiser.device)
        case Automatic():
            return build_automatic(config, name, provider, regions, engine)
        case MaskGeneration():
            raise ConfigProblem(f"segment.providers.{name}: expected places, got labels")
        case _:
            assert_never(provider)


def _of_places(
    name: str, provider: Provider, regions: dict[str, Prompt], engine: Engine
) -> MaskProvider:
    if not isinstance(provider, MaskGeneration):
        raise ConfigProblem(f"segment.providers.{name}: expected labels, got places")
    places = {
        n: Place(s.points, () if s.within is None else (s.within,)) for n, s in regions.items()
    }
    return GeneratedMasks(open_mask_generator(provider.model), places, engine.denoiser.device)
