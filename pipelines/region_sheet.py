"""The contact sheet of a region model: what each region is on some images, for a person to name it.

Shape suffixes: N images, K regions, H, W of the image, C colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lib.files import storage
from lib.files.images import encode
from lib.ledger.run_folder import RunFolder
from lib.masks.automatic import AutomaticMasks
from lib.masks.cluster_names import NamedRegions, read_regions
from lib.models.kernels import settle
from lib.pixels import quantised
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.engine import load_model
from pipelines.held_out import first_samples
from pipelines.inputs import absolute
from pipelines.region_drawing import drawn_sheet
from pipelines.region_model import feature_reader

_PRESENT = 0.001
"""Part of an image from which on a region counts as being there."""
_BATCH = 8
FILE_NAME = "regions.png"


@dataclass(frozen=True, slots=True)
class RegionPart:
    """One region over the images of the sheet."""

    number: int
    name: str
    share: float
    """Of all pixels of the run's images."""
    present: float
    """Part of the sheet's images that have it."""
    least: float
    """Of the image, where it is there."""
    most: float


@dataclass(frozen=True, slots=True)
class RegionSheet:
    """What was drawn."""

    path: str
    parts: tuple[RegionPart, ...]


def write_region_sheet(run: str, images: int) -> RegionSheet:
    """Draw the regions of the run in folder `run` on the first `images` of its images, into
    `regions/regions.png` in that folder.

    Raises:
        Problem: there is no such run, it has learned no regions, or none of its images is there.
    """
    folder = RunFolder(absolute(run))
    regions = read_regions(folder.root)
    config = _config(folder)
    settle(config.model.cpu_threads)
    denoiser, _, model = load_model(config)
    if model != regions.model.study.model:
        raise ConfigProblem(
            f"{storage.redact(folder.root)}: expected the weights that the regions were learned"
            f" with ({regions.model.study.model[:16]}), found {model[:16]}"
        )
    samples = first_samples(config, denoiser.image_size, images)
    study = regions.model.study
    reader = feature_reader(config, denoiser, study.timesteps, study.blocks)
    masks = AutomaticMasks(reader, regions.model, {}, min_component=0.0)
    image_NCHW = torch.stack([sample.image_CHW for sample in samples])
    numbers_NHW = torch.cat([masks.numbers(part)[0] for part in image_NCHW.split(_BATCH)]).numpy()
    pixels_NHWC = quantised(image_NCHW).permute(0, 2, 3, 1).contiguous().numpy()
    parts = region_parts(regions, numbers_NHW)
    url = folder.url("regions", FILE_NAME)
    names, shares = [p.name for p in parts], [p.share for p in parts]
    sheet_HWC = drawn_sheet(pixels_NHWC, numbers_NHW, names, shares)
    storage.replace(url, encode(sheet_HWC, "png", 100))
    return RegionSheet(storage.redact(url), parts)


def region_parts(
    regions: NamedRegions, numbers_NHW: npt.NDArray[np.int64]
) -> tuple[RegionPart, ...]:
    """How large each region is, and in how many images it is at all."""
    found = []
    for number, share in enumerate(regions.model.share_K.tolist()):
        area_N = (numbers_NHW == number).mean((1, 2))
        there: Sequence[float] = area_N[area_N >= _PRESENT].tolist()
        found.append(
            RegionPart(
                number,
                regions.names.get(number, ""),
                share,
                len(there) / len(area_N),
                min(there, default=0.0),
                max(there, default=0.0),
            )
        )
    return tuple(found)


def _config(folder: RunFolder) -> RunConfig:
    try:
        return RunConfig.model_validate(folder.read_run()["config"])
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{storage.redact(folder.root)}: expected a run folder, found no run.json in it"
        ) from error
