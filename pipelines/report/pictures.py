"""Pictures out of the tars under images/.

A tar is read from its start only as far as the wanted members lie; one that is missing or damaged
becomes a notice.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lib.files import storage
from lib.files.image_files import ImageError, open_image
from lib.ledger.run_folder import RunFolder
from pipelines.heat_maps import Mask, Pixels
from pipelines.report.samples import Sample

MAX_SIDE = 256
"""Larger pictures are reduced to this side."""

_MAX_MEMBER_BYTES = 64 * 2**20
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Sides:
    """Pixels along a side of the square pictures."""

    stored: int
    shown: int
    """At most MAX_SIDE."""


@dataclass(slots=True)
class Pictures:
    """Decoded pictures of one tar; what could not be had is absent."""

    edited: dict[tuple[str, str], Pixels]
    """(shard, member) -> (H, W, 3)."""
    originals: dict[tuple[str, int], Pixels]
    """(shard, index) -> (H, W, 3)."""
    masks: dict[tuple[str, int, str], Mask]
    """(shard, index, region) -> (H, W)."""
    notices: list[str]


def picture_sides(folder: RunFolder, samples: Collection[Sample]) -> tuple[Sides | None, list[str]]:
    """The sides of the run's pictures, from the first that can be read, and what could not be read
    before it.
    """
    problems: dict[str, None] = {}
    for sample in samples:
        label = f"images/{sample.tar}"
        member = sample.rows[0]["member"]
        found, problem = _read_tar(folder.url("images", sample.tar), {member}, label)
        if problem or member not in found:
            problems[problem or f"{label} lacks {member}, which its commit names"] = None
            continue
        try:
            side = max(open_image(found[member], max_pixels=_MAX_PIXELS)[0].size)
        except ImageError as error:
            problems[f"{label}: {member} cannot be shown: {error}"] = None
            continue
        return Sides(side, min(MAX_SIDE, side)), list(problems)
    return None, list(problems)


def load_pictures(
    folder: RunFolder,
    tar: str,
    wanted: Iterable[tuple[Sample, Collection[int]]],
    side: int,
    *,
    pairs: bool,
) -> Pictures:
    """The edits of each sample at the wanted positions of its rows, all of the tar `tar`, brought
    to `side` x `side`; with `pairs` the original and masks that are stored beside them, too.
    """
    pictures = Pictures({}, {}, {}, [])
    edited: dict[tuple[str, str], str] = {}
    originals: dict[tuple[str, int], str] = {}
    masks: dict[tuple[str, int, str], str] = {}
    for sample, places in wanted:
        for row in (sample.rows[place] for place in places):
            member = row["member"]
            edited[sample.shard, member] = member
            stem, paired, extension = member.rpartition(".edited.")
            if paired and pairs:  # every edit repeats the original: the first will do
                original = f"{stem}.original.{extension}"
                originals.setdefault((sample.shard, sample.index), original)
                place = (sample.shard, sample.index, row["region"])
                masks.setdefault(place, f"{stem}.mask.png")
    names = {*edited.values(), *originals.values(), *masks.values()}
    label = f"images/{tar}"
    found, problem = _read_tar(folder.url("images", tar), names, label)
    if problem:
        pictures.notices.append(problem)
    elif names - found.keys():
        missing = sorted(names - found.keys())
        pictures.notices.append(
            f"{label} lacks {len(missing)} members that belong to it, such as {missing[0]}"
        )

    def decoded(name: str) -> Image.Image | None:
        if name not in found:
            return None
        try:
            return open_image(found[name], max_pixels=_MAX_PIXELS)[0]
        except ImageError as error:
            pictures.notices.append(f"{label}: {name} cannot be shown: {error}")
            return None

    for edit, name in edited.items():
        if (image := decoded(name)) is not None:
            pictures.edited[edit] = resized(image, side)
    for identity, name in originals.items():
        if (image := decoded(name)) is not None:
            pictures.originals[identity] = resized(image, side)
    for place, name in masks.items():
        if (image := decoded(name)) is not None:
            pictures.masks[place] = resized_mask(image.convert("L"), side)
    return pictures


def resized(image: Image.Image, side: int) -> Pixels:
    """`image` as RGB pixels of `side` x `side`."""
    rgb = image.convert("RGB")
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(rgb, dtype=np.uint8)


def resized_mask(coverage: Image.Image, side: int) -> Mask:
    """Where a grey image of `side` x `side` covers half and more."""
    if coverage.size != (side, side):
        coverage = coverage.resize((side, side), Image.Resampling.BOX)
    return np.asarray(np.asarray(coverage) >= 128)


def region_mask(pictures: Pictures, sample: Sample, region: str) -> Mask | None:
    """The region's mask; of several joined by + the union of theirs, None where one is lacking."""
    whole = pictures.masks.get((sample.shard, sample.index, region))
    if whole is not None or "+" not in region:
        return whole
    parts = [pictures.masks.get((sample.shard, sample.index, part)) for part in region.split("+")]
    known = [part_HW for part_HW in parts if part_HW is not None]
    return np.logical_or.reduce(known) if len(known) == len(parts) else None


def _read_tar(url: str, names: Collection[str], label: str) -> tuple[dict[str, bytes], str | None]:
    """The members `names` that can be read, and what went wrong before all were found."""
    left = set(names)
    found: dict[str, bytes] = {}

    def read(fs: Any, path: str) -> None:
        with (
            fs.open(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive,
        ):
            for entry in archive:
                if entry.name in left and entry.isreg() and entry.size <= _MAX_MEMBER_BYTES:
                    content = archive.extractfile(entry)
                    found[entry.name] = content.read() if content is not None else b""
                    left.discard(entry.name)
                if not left:
                    break

    try:
        storage.ask(url, read)
    except FileNotFoundError:
        return found, f"{label} is missing, so its pictures are not shown"
    except (tarfile.TarError, OSError, ValueError, LookupError, OverflowError, EOFError) as error:
        reason = storage.redact(str(error))
        return found, f"{label} cannot be read to where the shown pictures lie: {reason}"
    return found, None
