"""The pictures of a report and what its scripts must know of them: contact sheets, the best and
worst edits, thumbnails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.report.cards import Card, heat_limits, make_cards, sheet_plan
from pipelines.report.extremes import find_extremes, shown_rows
from pipelines.report.groups import GroupKey
from pipelines.report.numbers import RunNumbers
from pipelines.report.pictures import picture_sides
from pipelines.report.samples import Samples
from pipelines.report.summary import card_data, extreme_data, sheet_data
from pipelines.report.thumbnails import COLUMNS, PER_FILE, SIDE, make_thumbnails

_TRIED = 12
"""Samples whose tars are tried for the size of the run's pictures."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pictures."""

    cards: tuple[Card, ...]
    thumbnail_rows: Mapping[int, int]
    """Row of the report's table -> number of its thumbnail."""
    files: Mapping[str, bytes]
    summary: Mapping[str, Any]
    """What the scripts must know at once."""
    sheets: int
    sheets_left_out: int
    extremes: int
    """Lists of the best and worst."""
    notices: tuple[str, ...]


def make_gallery(folder: RunFolder, config: RunConfig | None, numbers: RunNumbers) -> Gallery:
    """Choose samples, read their pictures and draw them; what cannot be shown is a notice."""
    samples = Samples(numbers)
    plan, left_out = sheet_plan(numbers, samples)
    sides, problems = picture_sides(folder, [samples[n] for n in samples.even(_TRIED)])
    if sides is None:
        empty: dict[str, Any] = {"cards": [], "sheets": [], "extremes": [], "thumbnails": None}
        return Gallery((), {}, {}, empty, 0, 0, 0, tuple(problems))
    extremes = find_extremes(numbers)
    planned = list(dict.fromkeys(sheet for sheets in plan.values() for sheet in sheets))
    of_extremes = [numbers.keys[numbers.group_N[row]].sheet for row in shown_rows(extremes)]
    limits = heat_limits(numbers, [*planned, *of_extremes])
    on_sheets = make_cards(folder, config, plan, samples, limits, sides)
    more: dict[int, list[GroupKey]] = {}
    shown = {row for card in on_sheets.cards for row in card.rows}
    for row in shown_rows(extremes):
        sheet = numbers.keys[numbers.group_N[row]].sheet
        wanted = more.setdefault(samples.of_row(row), [])
        if row not in shown and sheet not in wanted:
            wanted.append(sheet)
    more = {number: sheets for number, sheets in more.items() if sheets}
    others = make_cards(folder, config, more, samples, limits, sides, first=len(on_sheets.cards))
    cards = on_sheets.cards + others.cards
    thumbnails = make_thumbnails(folder, samples, [*plan, *more], sides)
    sheets = sheet_data(numbers, cards, planned, len(on_sheets.cards))
    lists = extreme_data(extremes, cards, numbers.measures)
    summary = {
        "cards": card_data(numbers, cards, limits, sides.shown),
        "sheets": sheets,
        "extremes": lists,
        "thumbnails": {
            "side": min(SIDE, sides.shown),
            "columns": COLUMNS,
            "perFile": PER_FILE,
            "files": list(thumbnails.files),
        },
    }
    return Gallery(
        cards=cards,
        thumbnail_rows=thumbnails.rows,
        files={**on_sheets.files, **others.files, **thumbnails.files},
        summary=summary,
        sheets=len(sheets),
        sheets_left_out=left_out,
        extremes=len(lists),
        notices=tuple(dict.fromkeys((*problems, *on_sheets.notices, *others.notices))),
    )
