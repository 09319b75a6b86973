"""Face shards for the demo: generated faces with their exact masks and factors, as a user's shards
would be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch

from lib.demo.faces import FACTORS, masks, render, sample_factors
from lib.files import storage
from lib.files.images import encode
from lib.files.tar_writer import write_tar

_SIZE = 64


def write_shards(
    folder: str,
    *,
    shards: int,
    faces_per_shard: int,
    seed: int,
    name: str = "faces",
    raised: Sequence[str] = (),
) -> list[str]:
    """Write `<name>-00000.tar`, ... into `folder`; shards that are there already are kept. Returns
    the URLs.

    A sample is `<key>.png`, one `<key>.<region>.png` a region (grey coverage of the largest area
    the part can occupy), and `<key>.json` with the 16 factors. For each factor of `raised` there
    is `<key>.<factor>_up.png` too, the same face with the factor higher by 1, also where that is
    beyond the range of the faces. The same arguments write the same bytes.
    """
    urls = []
    for number in range(shards):
        url = storage.join(folder, f"{name}-{number:05d}.tar")
        factors_BF = sample_factors(faces_per_shard, seed + number)
        if not storage.exists(url):
            with suppress(FileExistsError):  # another writer, of the same bytes
                storage.create(url, write_tar(_members(factors_BF, number, raised)))
        urls.append(url)
    return urls


def _members(
    factors_BF: torch.Tensor, number: int, raised: Sequence[str]
) -> list[tuple[str, bytes]]:
    higher = {f"{name}_up": _pixels(_raised(factors_BF, name)) for name in raised}
    pixels_BHWC = _pixels(factors_BF)
    zones = {name: _bytes(z_BHW) for name, z_BHW in masks(factors_BF, _SIZE).zones.items()}
    members = []
    for row, factors_F in enumerate(factors_BF):
        key = f"face-{number:05d}-{row:03d}"
        values = {name: round(float(v), 4) for name, v in zip(FACTORS, factors_F, strict=True)}
        members.append((f"{key}.png", encode(pixels_BHWC[row].contiguous().numpy(), "png", 100)))
        members += [
            (f"{key}.{name}.png", encode(_grey(zone_BHW[row]), "png", 100))
            for name, zone_BHW in sorted(zones.items())
        ]
        members += [
            (f"{key}.{name}.png", encode(up_BHWC[row].contiguous().numpy(), "png", 100))
            for name, up_BHWC in sorted(higher.items())
        ]
        members.append((f"{key}.json", (json.dumps(values, sort_keys=True) + "\n").encode()))
    return members


def _pixels(factors_BF: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) uint8."""
    return _bytes(render(factors_BF, _SIZE).image_BCHW / 2 + 0.5).permute(0, 2, 3, 1)


def _raised(factors_BF: torch.Tensor, name: str) -> torch.Tensor:
    higher_BF = factors_BF.clone()
    higher_BF[:, FACTORS.index(name)] += 1
    return higher_BF


def _bytes(unit: torch.Tensor) -> torch.Tensor:
    return (unit * 255).round().clamp(0, 255).to(torch.uint8)


def _grey(mask_HW: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(mask_HW.expand(3, -1, -1).permute(1, 2, 0).numpy())
