"""Which samples the report shows, and their pictures out of the tars under images/.

A tar is read from its start only as far as the wanted members lie; one that is missing or damaged
becomes a notice.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lib import storage
from lib.commit_record import CommitDamageError, read_commit_rows
from lib.image_files import ImageError, open_image
from lib.run_folder import RunFolder
from lib.store_backends import PlainErrors, backend
from pipelines.contact_sheets import Mask, Pixels
from pipelines.report_numbers import spread
from pipelines.report_shard import GroupKey, group_key

MAX_SIDE = 256
"""Larger pictures are reduced to this side."""

_MAX_MEMBER_BYTES = 64 * 2**20
_MAX_PIXELS = 64_000_000
_ROW_COLUMNS = (
    "index", "key", "member", "sha256", "region", "rank", "direction", "strength",
    "added_directions", "added_regions", "added_ranks", "added_strengths", "noise", "in_change",
    "out_change", "roir", "psnr", "source_width", "source_height", "crop_left", "crop_top",
    "crop_width", "crop_height",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample to show: the rows of its edits as the commit has them, by column name."""

    shard: str
    index: int
    key: str
    tar: str
    own: bool
    """Whether its directions are its own, not a library's."""
    input_sha256: str
    rows: tuple[Mapping[str, Any], ...]

    def group(self, row: Mapping[str, Any]) -> GroupKey:
        """The group that one of `rows` counts in."""
        return group_key(row, own=self.own)


@dataclass(frozen=True, slots=True)
class Sides:
    """Pixels along a side of the square pictures."""

    stored: int
    shown: int
    """At most MAX_SIDE."""


@dataclass(slots=True)
class Pictures:
    """Decoded pictures, at most MAX_SIDE pixels wide; what could not be had is absent."""

    edited: dict[tuple[str, str], Pixels]
    """(shard, member) -> (H, W, 3)."""
    originals: dict[tuple[str, int], Pixels]
    """(shard, index) -> (H, W, 3)."""
    masks: dict[tuple[str, int, str], Mask]
    """(shard, index, region) -> (H, W)."""
    notices: list[str]


def choose_samples(
    folder: RunFolder, shards: Sequence[str], count: int
) -> tuple[list[Sample], list[str]]:
    """At most `count` samples with edits, taking turns between evenly spaced shards, from the front
    of each; and what could not be read.
    """
    columns: list[list[Sample]] = []
    notices = []
    for shard in spread(shards, count):
        try:
            columns.append(_samples(folder, shard, count))
        except (CommitDamageError, OSError) as error:
            notices.append(storage.redact(str(error)))
    turns = [
        column[turn] for turn in range(count) for column in columns if turn < len(column)
    ]  # fmt: skip
    return sorted(turns[:count], key=lambda sample: (sample.shard, sample.index)), notices


def picture_sides(folder: RunFolder, samples: Sequence[Sample]) -> tuple[Sides | None, list[str]]:
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
    folder: RunFolder, samples: Iterable[Sample], shown: Collection[GroupKey], sides: Sides
) -> Pictures:
    """The pictures of `samples` in the groups `shown`, with the original and masks stored beside
    them, brought to `side` x `side`.
    """
    pictures = Pictures({}, {}, {}, [])
    by_tar: dict[str, list[Sample]] = {}
    for sample in samples:
        by_tar.setdefault(sample.tar, []).append(sample)
    for tar, members in by_tar.items():
        _load_tar(folder, tar, members, shown, sides, pictures)
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


def _samples(folder: RunFolder, shard: str, count: int) -> list[Sample]:
    record, table = read_commit_rows(folder.commit_url(shard))
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in table.select(list(_ROW_COLUMNS)).to_batches(max_chunksize=1024):
        for values in row.to_pylist():
            if values["index"] not in rows and len(rows) == count:
                break
            rows.setdefault(values["index"], []).append(values)
    return [
        Sample(
            shard, index, found[0]["key"], record.image, record.own_directions,
            record.input_sha256, tuple(found),
        )
        for index, found in rows.items()
    ]  # fmt: skip


def _load_tar(
    folder: RunFolder,
    tar: str,
    samples: list[Sample],
    shown: Collection[GroupKey],
    sides: Sides,
    pictures: Pictures,
) -> None:
    edited: dict[tuple[str, str], str] = {}
    originals: dict[tuple[str, int], str] = {}
    masks: dict[tuple[str, int, str], str] = {}
    for sample in samples:
        for row in sample.rows:
            if sample.group(row) not in shown:
                continue
            member = row["member"]
            edited[sample.shard, member] = member
            stem, paired, extension = member.rpartition(".edited.")
            if paired:  # every edit repeats the original: the first will do
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
            pictures.edited[edit] = resized(image, sides.shown)
    for identity, name in originals.items():
        if (image := decoded(name)) is not None:
            pictures.originals[identity] = resized(image, sides.shown)
    for place, name in masks.items():
        if (image := decoded(name)) is not None:
            pictures.masks[place] = resized_mask(image.convert("L"), sides.shown)


def _read_tar(url: str, names: Collection[str], label: str) -> tuple[dict[str, bytes], str | None]:
    """The members `names` that can be read, and what went wrong before all were found."""
    left = set(names)
    found: dict[str, bytes] = {}
    try:
        with PlainErrors(url):
            fs, path = backend(url)
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
    except FileNotFoundError:
        return found, f"{label} is missing, so its pictures are not shown"
    except (tarfile.TarError, OSError, ValueError, LookupError, OverflowError, EOFError) as error:
        reason = storage.redact(str(error))
        return found, f"{label} cannot be read to where the shown pictures lie: {reason}"
    return found, None
