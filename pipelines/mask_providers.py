"""From the section `segment` to loaded providers of masks, and the stage that asks them."""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

from lib.masks.mask_files import Boxes, MaskFiles
from lib.masks.provider import MaskProvider
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.segment_config import (
    Automatic,
    Box,
    Classes,
    LabelMap,
    MaskFile,
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
    found: list[MaskProvider] = []
    files = {n: s.file for n, s in regions.items() if isinstance(s, MaskFile)}
    boxes = {n: s.box for n, s in regions.items() if isinstance(s, Box)}
    if files:
        found.append(MaskFiles(files, max_pixels=config.input.max_pixels))
    if boxes:
        found.append(Boxes(boxes, size=engine.denoiser.image_size))
    for name, provider in config.segment.providers.items():
        classes = {
            n: s for n, s in regions.items() if isinstance(s, Classes) and s.provider == name
        }
        prompts = {n: s for n, s in regions.items() if isinstance(s, Prompt) and s.provider == name}
        if classes or prompts:
            found.append(_provider(provider, classes, prompts, config, engine))
    return found


def _provider(
    provider: Provider,
    classes: dict[str, Classes],
    prompts: dict[str, Prompt],
    config: RunConfig,
    engine: Engine,
) -> MaskProvider:
    match provider:
        case PartFiles():
            raise ConfigProblem("part_files")
        case LabelMap():
            raise ConfigProblem("label_map")
        case Semantic():
            raise ConfigProblem("semantic")
        case MaskGeneration():
            raise ConfigProblem("mask_generation")
        case Automatic():
            raise ConfigProblem("segment.providers: kind automatic is not built yet")
        case _:
            assert_never(provider)
