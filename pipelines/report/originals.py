"""Originals and masks for runs that do not store them: read again from the input shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
import numpy.typing as npt
from PIL import Image

from lib.files import storage
from lib.files.image_files import ImageError
from lib.files.images import Geometry, decode, decode_mask
from lib.files.samples import RawSample, SampleError, ShardDamage, image_member, read_shard
from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.heat_maps import Mask
from pipelines.report.pictures import Pictures, Sides, resized, resized_mask
from pipelines.report.samples import Sample
from pipelines.segment_config import Box, Classes, MaskFile, Prompt
from pipelines.side_files import side_files

_MAX_SHARD_BYTES = 2 * 2**30
"""A larger input shard is not read for the report."""
_FROM_FILES = ("part_files", "label_map")
"""Kinds of providers whose masks can be had again without a network."""

_GEOMETRY = {
    "width": "source_width",
    "height": "source_height",
    "crop_left": "crop_left",
    "crop_top": "crop_top",
    "crop_width": "crop_width",
    "crop_height": "crop_height",
}


class OriginalsReader:
    """Adds the originals and masks that are not stored with the edits; what cannot be had becomes a
    notice.
    """

    def __init__(self, folder: RunFolder, config: RunConfig | None) -> None:
        self._config = config
        self._urls: Mapping[str, str] = {}
        self.notices: list[str] = []
        try:
            self._urls = folder.inputs()
        except (OSError, ValueError) as error:
            self.notices.append(f"inputs.json cannot be read: {storage.redact(str(error))}")

    def add(self, samples: Iterable[Sample], sides: Sides, pictures: Pictures) -> None:
        """Add to `pictures` the originals and masks that it lacks."""
        lacking: dict[str, list[Sample]] = {}
        for sample in samples:
            if (sample.shard, sample.index) not in pictures.originals:
                lacking.setdefault(sample.shard, []).append(sample)
        if not lacking:
            return
        if self._config is None:
            sentence = (
                "This run stores no originals, and without its run.json they cannot be read again"
                " from the input shards: only the edits are shown."
            )
            if sentence not in self.notices:
                self.notices.append(sentence)
            return
        self._tell_of_networks(self._config)
        for shard, found in lacking.items():
            try:
                raw = _input_samples(self._urls, found[0])
            except (OSError, ValueError, ImportError) as error:
                self.notices.append(
                    f"Originals of shard {shard} are not stored in the run and cannot be read from"
                    f" its input: {storage.redact(str(error))}"
                )
                continue
            for sample in found:
                try:
                    _add(self._config, sample, raw[sample.index], sides, pictures)
                except (ImageError, SampleError, KeyError) as error:
                    self.notices.append(
                        f"The original of sample {sample.index} of shard {shard} cannot be shown:"
                        f" {error}"
                    )

    def _tell_of_networks(self, config: RunConfig) -> None:
        names = sorted(
            name
            for name, source in config.segment.regions.items()
            if isinstance(source, Classes | Prompt)
            and config.segment.providers[source.provider].kind not in _FROM_FILES
        )
        sentence = (
            f"The masks of {', '.join(names)} come from networks and are stored with"
            " output.layout pairs alone: they are not shown."
        )
        if names and sentence not in self.notices:
            self.notices.append(sentence)


def _input_samples(urls: Mapping[str, str], sample: Sample) -> dict[int, RawSample]:
    """The samples of the shard that `sample` came from, by index."""
    if sample.shard not in urls:
        raise FileNotFoundError("inputs.json does not say where it is")
    data = storage.read_bytes(urls[sample.shard], max_bytes=_MAX_SHARD_BYTES)
    if sha256(data).hexdigest() != sample.input_sha256:
        raise ShardDamage("changed", "it is no longer the file that was edited")
    contents = read_shard(data, sample.shard, max_bytes=2 * _MAX_SHARD_BYTES, salvage=True)
    return {raw.index: raw for raw in contents.samples}


def _add(
    config: RunConfig, sample: Sample, raw: RawSample, sides: Sides, pictures: Pictures
) -> None:  # fmt: skip
    claimed = side_files(config)
    pixels_HWC, geometry = decode(
        raw.files[image_member(raw, claimed)],
        size=sides.stored,
        fit=config.input.fit,
        min_side=1,
        max_pixels=config.input.max_pixels,
    )
    _check_geometry(sample, geometry)
    pictures.originals[sample.shard, sample.index] = resized(
        Image.fromarray(pixels_HWC), sides.shown
    )
    for name, mask in _masks(config, raw, geometry, sides.shown).items():
        pictures.masks[sample.shard, sample.index, name] = mask


def _masks(config: RunConfig, raw: RawSample, geometry: Geometry, side: int) -> dict[str, Mask]:
    """Of all regions that need no network, side x side."""
    segment, max_pixels = config.segment, config.input.max_pixels
    if segment.providers or segment.dilation:
        # These need torch, which the report does without otherwise.
        from pipelines.file_masks import masks_of_files

        masks = masks_of_files(segment, raw.files, geometry, max_pixels=max_pixels)
        return {name: _shown(mask_HW.numpy(), side) for name, mask_HW in masks.items()}
    found: dict[str, Mask] = {}
    for name, source in segment.regions.items():
        if isinstance(source, Box):
            found[name] = _inside(source, side)
        elif isinstance(source, MaskFile) and source.file in raw.files:
            coverage_HW = decode_mask(
                raw.files[source.file], geometry=geometry, max_pixels=max_pixels
            )
            found[name] = _shown(coverage_HW, side)
    return found


def _shown(coverage_HW: npt.NDArray[np.float32], side: int) -> Mask:
    return resized_mask(Image.fromarray((coverage_HW * 255).round().astype(np.uint8)), side)


def _inside(source: Box, side: int) -> Mask:
    left, top, right, bottom = (edge * side for edge in source.box)
    place = np.arange(side) + 0.5
    return ((place >= top) & (place < bottom))[:, None] & ((place >= left) & (place < right))


def _check_geometry(sample: Sample, geometry: Geometry) -> None:
    row = sample.rows[0]
    for name, column in _GEOMETRY.items():
        if getattr(geometry, name) != row[column]:
            raise ImageError(
                "unsupported",
                f"expected {column} {row[column]} as in the commit, got {getattr(geometry, name)}",
            )
