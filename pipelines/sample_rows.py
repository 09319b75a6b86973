"""Columns that describe a sample in the rows of any pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from lib.direction import Direction
from lib.records import Inverted, Sample


def place_columns(sample: Sample) -> dict[str, Any]:
    """Which sample of which shard."""
    return {"shard": sample.shard, "index": sample.index, "key": sample.key}


def geometry_columns(sample: Sample) -> dict[str, Any]:
    """What of the input image was used."""
    geometry = sample.geometry
    return {
        "source_width": geometry.width,
        "source_height": geometry.height,
        "crop_left": geometry.crop_left,
        "crop_top": geometry.crop_top,
        "crop_width": geometry.crop_width,
        "crop_height": geometry.crop_height,
    }


def looked_row(sample: Sample, network_evaluations: float) -> dict[str, Any]:
    """A row of `schemas.SAMPLES` for an image that was only looked at."""
    return {
        **place_columns(sample),
        "directions": 0,
        "network_evaluations": network_evaluations,
        "jvp_count": 0,
        "vjp_count": 0,
        "psnr": None,
        **geometry_columns(sample),
    }


def sample_row(
    inverted: Inverted, directions: Sequence[Direction], network_evaluations: float
) -> dict[str, Any]:
    """A row of `schemas.SAMPLES`. Products are counted for all regions of an image together, so
    its directions all say the same number.
    """
    sample = inverted.sample
    return {
        **place_columns(sample),
        "directions": len(directions),
        "network_evaluations": network_evaluations,
        "jvp_count": max((d.jvp_count for d in directions), default=0),
        "vjp_count": max((d.vjp_count for d in directions), default=0),
        "psnr": None if isnan(inverted.psnr) else inverted.psnr,
        **geometry_columns(sample),
    }
