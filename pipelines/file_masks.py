"""The providers that need no network: mask files, boxes, part files and label maps, for a run and
for whoever has the sample's files again later.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.files.image_files import ImageError
from lib.files.images import Geometry
from lib.masks.class_names import numbers_of, parts_of
from lib.masks.dilation import dilated
from lib.masks.label_maps import LabelMapMasks
from lib.masks.mask_files import Boxes, MaskFiles
from lib.masks.part_files import PartFileMasks
from lib.masks.provider import MaskProvider
from lib.records import Sample
from pipelines.mask_models import classes_of
from pipelines.segment_config import Box, Classes, LabelMap, MaskFile, PartFiles, Segment, Source


def own_masks(regions: Mapping[str, Source], *, size: int, max_pixels: int) -> list[MaskProvider]:
    """The providers of those regions that have a side file or a box of their own."""
    files = {n: s.file for n, s in regions.items() if isinstance(s, MaskFile)}
    boxes = {n: s.box for n, s in regions.items() if isinstance(s, Box)}
    found: list[MaskProvider] = []
    if files:
        found.append(MaskFiles(files, max_pixels=max_pixels))
    if boxes:
        found.append(Boxes(boxes, size=size))
    return found


def shared_files(
    provider: PartFiles | LabelMap, regions: Mapping[str, Classes], *, max_pixels: int
) -> MaskProvider:
    """The provider of regions whose side files several of them share."""
    unite = provider.unite
    if isinstance(provider, LabelMap):
        names = provider.names
        numbers = {n: numbers_of(s.labels, names, unite=unite) for n, s in regions.items()}
        return LabelMapMasks(numbers, file=provider.file, names=names, max_pixels=max_pixels)
    files: dict[str, list[str]] = {}
    for region, source in regions.items():
        meant = [parts_of(str(label), provider.parts, unite=unite) for label in source.labels]
        parts = {part for each in meant for part in each}
        files[region] = [provider.pattern.format(p) for p in provider.parts if p in parts]
    return PartFileMasks(files, all_files=provider.files, max_pixels=max_pixels)


def masks_of_files(
    segment: Segment, files: Mapping[str, bytes], geometry: Geometry, *, max_pixels: int
) -> dict[str, Tensor]:
    """Region -> coverage_HW, float32 at `geometry.size`, for all regions that need no network and
    whose files are there and whole; as the run saw them.
    """
    nothing = torch.zeros(3, geometry.size, geometry.size)
    sample = Sample("", 0, "", nothing, geometry, files, 0)
    providers: list[MaskProvider] = []
    for region, source in segment.regions.items():  # one by one, so that each fails for itself
        providers += own_masks({region: source}, size=geometry.size, max_pixels=max_pixels)
    for name, provider in segment.providers.items():
        if isinstance(provider, PartFiles | LabelMap):
            regions = classes_of(segment, name)
            providers.append(shared_files(provider, regions, max_pixels=max_pixels))
    found: dict[str, Tensor] = {}
    for ask in providers:
        (answer,) = ask([sample])
        if not isinstance(answer, ImageError):
            found |= {name: dilated(mask, segment.dilation) for name, mask in answer.items()}
    return found
