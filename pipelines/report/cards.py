"""The report's cards: a sample's edits along one direction, from the most negative strength to the
most positive, with the original, the region and heat maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.heat_maps import Pixels
from pipelines.report.groups import GroupKey
from pipelines.report.numbers import RunNumbers, spread
from pipelines.report.originals import OriginalsReader
from pipelines.report.pictures import Pictures, Sides, load_pictures, region_mask
from pipelines.report.samples import Sample, Samples, by_tar, sheets_of
from pipelines.report.sprites import card_sprite

MAX_SHEETS = 24
MAX_SAMPLES = 12
"""On a sheet."""

_MAX_CARDS = 144
"""On all sheets."""
_MIN_SAMPLES = 4
_MAX_STRENGTHS = 21
_HEAT_PER_CHANGE = 3.0
"""The bright end of heat maps, in units of a strong edit's mean change in the region."""


@dataclass(frozen=True, slots=True)
class Card:
    """A sample's edits on one sheet; its sprite is `file`."""

    file: str
    """Relative to the page."""
    sample: Sample
    sheet: GroupKey
    strengths: tuple[float, ...]
    rows: tuple[int, ...]
    """Of the report's table, in the order of the strengths."""
    has_original: bool
    has_mask: bool


@dataclass(frozen=True, slots=True)
class Cards:
    """All cards of a report."""

    cards: tuple[Card, ...]
    files: Mapping[str, bytes]
    """Name relative to the page -> WebP."""
    notices: tuple[str, ...]


def sheet_plan(numbers: RunNumbers, samples: Samples) -> tuple[dict[int, list[GroupKey]], int]:
    """(sample number -> sheets that show it, sheets that are left out)."""
    sheets = list(sheets_of(numbers))
    shown = sheets[:MAX_SHEETS]
    each = max(_MIN_SAMPLES, min(MAX_SAMPLES, _MAX_CARDS // max(1, len(shown))))
    plan: dict[int, list[GroupKey]] = {number: list(shown) for number in samples.even(each)}
    return plan, len(sheets) - len(shown)


def heat_limits(numbers: RunNumbers, shown: Iterable[GroupKey]) -> dict[GroupKey, float]:
    """Sheet -> change at the bright end of its heat maps, from the numbers of all its edits."""
    change_N = numbers.column("in_change")
    groups = sheets_of(numbers)
    limits = {}
    for sheet in dict.fromkeys(shown):
        of_sheet_N = change_N[np.isin(numbers.group_N, groups[sheet])]
        known = of_sheet_N[np.isfinite(of_sheet_N)]
        strong = float(np.percentile(known, 90)) if known.size else 1.0
        limits[sheet] = max(0.02, float(f"{min(2.0, _HEAT_PER_CHANGE * strong):.1g}"))
    return limits


def make_cards(
    folder: RunFolder,
    config: RunConfig | None,
    plan: Mapping[int, Sequence[GroupKey]],
    samples: Samples,
    limits: Mapping[GroupKey, float],
    sides: Sides,
    *,
    first: int = 0,
) -> Cards:
    """Read the pictures of the planned cards, tar by tar, and draw their sprites; the files are
    numbered from `first`.
    """
    chosen = {number: samples[number] for number in sorted(plan)}
    planned = {sample.first_row: plan[number] for number, sample in chosen.items()}
    originals = OriginalsReader(folder, config)
    cards: list[Card] = []
    files: dict[str, bytes] = {}
    notices: list[str] = []
    for tar, members in by_tar(chosen.values()):
        rows = [
            (sample, {sheet: _few(sample.of_sheet(sheet)) for sheet in planned[sample.first_row]})
            for sample in members
        ]
        wanted = [
            (sample, {place for found in by_sheet.values() for _, place in found})
            for sample, by_sheet in rows
        ]
        pictures = load_pictures(folder, tar, wanted, sides.shown, pairs=True)
        originals.add(members, sides, pictures)
        for sample, by_sheet in rows:
            for sheet, edits in by_sheet.items():
                name = f"cards/{first + len(cards):04d}.webp"
                found = _card(name, sample, sheet, edits, pictures)
                if found is None:
                    continue
                card, edited = found
                original_HWC = pictures.originals.get((sample.shard, sample.index))
                mask_HW = region_mask(pictures, sample, sheet.region)
                files[name] = card_sprite(original_HWC, edited, mask_HW, limits[sheet], sides.shown)
                cards.append(card)
        notices += pictures.notices
    return Cards(tuple(cards), files, (*notices, *originals.notices))


def _few(rows: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Both ends and evenly spaced strengths between them, if there are too many."""
    if len(rows) <= _MAX_STRENGTHS:
        return list(rows)
    return [*spread(rows[:-1], _MAX_STRENGTHS - 1), rows[-1]]


def _card(
    name: str,
    sample: Sample,
    sheet: GroupKey,
    rows: Sequence[tuple[float, int]],
    pictures: Pictures,
) -> tuple[Card, list[Pixels]] | None:
    """The card of those edits whose picture there is, and their pictures; None without any."""
    there = [
        (strength, place, edited_HWC)
        for strength, place in rows
        if (edited_HWC := pictures.edited.get((sample.shard, sample.rows[place]["member"])))
        is not None
    ]
    if not there:
        return None
    card = Card(
        file=name,
        sample=sample,
        sheet=sheet,
        strengths=tuple(strength for strength, _, _ in there),
        rows=tuple(sample.first_row + place for _, place, _ in there),
        has_original=(sample.shard, sample.index) in pictures.originals,
        has_mask=region_mask(pictures, sample, sheet.region) is not None,
    )
    return card, [edited_HWC for _, _, edited_HWC in there]
