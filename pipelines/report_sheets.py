"""From chosen samples to the report's contact sheets: the sprites' bytes and what the page says
around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lib.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.contact_sheets import Layout, Mask, change, heat_limit, sprite
from pipelines.report_numbers import RunNumbers
from pipelines.report_originals import add_originals
from pipelines.report_pictures import (
    Pictures,
    Sample,
    choose_samples,
    load_pictures,
    picture_sides,
)
from pipelines.report_shard import GroupKey

MAX_ROWS = 12
"""Samples on a sheet."""
MAX_SHEETS = 24

_BUDGET_BYTES = 2_300_000
"""Of all sprites together, estimated before they are made."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What the commit says of one edit."""

    strength: float
    in_change: float
    out_change: float
    roir: float


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One sample on a sheet."""

    file: str
    """Of the sprite, relative to the page."""
    shard: str
    index: int
    key: str
    psnr: float
    captions: tuple[Caption | None, ...]
    """In the order of the sheet's strengths."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The contact sheet of a region and rank (and direction, where samples share it), alone or
    combined with others at their strengths.
    """

    group: GroupKey
    """Of its edits, whatever their strength."""
    layout: Layout
    heat_limit: float
    rows: tuple[SheetRow, ...]


@dataclass(frozen=True, slots=True)
class Sheets:
    """All contact sheets of a report."""

    sheets: tuple[Sheet, ...]
    files: dict[str, bytes]
    """Name relative to the page -> WebP."""
    left_out: int
    """Sheets beyond MAX_SHEETS."""
    notices: list[str]


def make_sheets(folder: RunFolder, config: RunConfig | None, numbers: RunNumbers) -> Sheets:
    """Choose samples, read their pictures and draw every sheet."""
    # Single directions first: where sheets are left out, combinations are.
    titles = sorted({key.sheet for key in numbers.counts}, key=lambda t: (t.added != "", t))
    shown = {
        title: tuple(sorted(key.strength for key in numbers.counts if key.sheet == title))
        for title in titles[:MAX_SHEETS]
    }
    samples, notices = choose_samples(folder, numbers.with_images, MAX_ROWS)
    sides, problems = picture_sides(folder, samples)
    if sides is None:
        return Sheets((), {}, 0, notices + problems)
    per_row = sum(Layout(sides.shown, s, originals=True).likely_bytes for s in shown.values())
    keys = {title._replace(strength=s) for title, found in shown.items() for s in found}
    rows = max(2, min(MAX_ROWS, int(_BUDGET_BYTES / per_row)))
    if rows < len(samples):
        samples, _ = choose_samples(folder, numbers.with_images, rows)
    pictures = load_pictures(folder, samples, keys, sides)
    add_originals(folder, config, samples, sides, pictures)
    files: dict[str, bytes] = {}
    sheets = []
    for number, (title, strengths) in enumerate(shown.items()):
        layout = Layout(sides.shown, strengths, originals=bool(pictures.originals))
        sheet = _sheet(f"sheets/{number:02d}", title, layout, samples, pictures, files)
        if sheet.rows:
            sheets.append(sheet)
    notices += pictures.notices
    return Sheets(tuple(sheets), files, len(titles) - len(shown), notices)


def _sheet(
    stem: str,
    title: GroupKey,
    layout: Layout,
    samples: Sequence[Sample],
    pictures: Pictures,
    files: dict[str, bytes],
) -> Sheet:
    """A sheet of the samples that have a picture for it; its sprites are added to `files`."""
    found = [(sample, _members(sample, title)) for sample in samples]
    changes = [
        change(edited_HWC, pictures.originals[sample.shard, sample.index])
        for sample, members in found
        if (sample.shard, sample.index) in pictures.originals
        for member in members.values()
        if (edited_HWC := pictures.edited.get((sample.shard, member))) is not None
    ]
    limit = heat_limit(changes)
    rows: list[SheetRow] = []
    for sample, members in found:
        edited = [
            pictures.edited.get((sample.shard, members.get(strength, "")))
            for strength in layout.strengths
        ]
        if all(edited_HWC is None for edited_HWC in edited):
            continue
        original_HWC = pictures.originals.get((sample.shard, sample.index))
        mask_HW = _mask(pictures, sample, title.region)
        name = f"{stem}-{len(rows):02d}.webp"
        files[name] = sprite(layout, original_HWC, edited, mask_HW, limit)
        rows.append(
            SheetRow(
                file=name,
                shard=sample.shard,
                index=sample.index,
                key=sample.key,
                psnr=sample.rows[0]["psnr"],
                captions=_captions(sample, title, layout.strengths),
            )
        )
    return Sheet(title, layout, limit, tuple(rows))


def _mask(pictures: Pictures, sample: Sample, region: str) -> Mask | None:
    """The region's mask; of several joined by + the union of theirs, None where one is lacking."""
    whole = pictures.masks.get((sample.shard, sample.index, region))
    if whole is not None or "+" not in region:
        return whole
    parts = [pictures.masks.get((sample.shard, sample.index, part)) for part in region.split("+")]
    known = [part_HW for part_HW in parts if part_HW is not None]
    return np.logical_or.reduce(known) if len(known) == len(parts) else None


def _members(sample: Sample, title: GroupKey) -> dict[float, str]:
    """Strength -> member, of the sample's edits on the sheet `title`."""
    keyed = ((sample.group(row), row["member"]) for row in sample.rows)
    return {key.strength: member for key, member in keyed if key.sheet == title}


def _captions(
    sample: Sample, title: GroupKey, strengths: Iterable[float]
) -> tuple[Caption | None, ...]:
    rows = {sample.group(row): row for row in sample.rows}
    found = (rows.get(title._replace(strength=strength)) for strength in strengths)
    return tuple(
        Caption(row["strength"], row["in_change"], row["out_change"], row["roir"]) if row else None
        for row in found
    )
