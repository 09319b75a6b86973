"""What the page's scripts must know at once: cards, lists of the best and worst, charts, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.cards import Card
from pipelines.report.extremes import Extreme
from pipelines.report.groups import GroupKey
from pipelines.report.measures import Measure
from pipelines.report.numbers import RunNumbers

_CARD_MEASURES = ("roir", "in_change", "out_change")


def card_data(
    numbers: RunNumbers, cards: Sequence[Card], limits: Mapping[GroupKey, float], side: int
) -> list[dict[str, Any]]:
    """Every card, with the measures of its edits."""
    measures = [m for m in numbers.measures if m.name in _CARD_MEASURES or m.is_score]
    columns = {measure.name: numbers.column(measure.name) for measure in measures}
    psnr = numbers.column("psnr") if "psnr" in numbers.edits.column_names else None
    return [
        {
            "file": card.file,
            "side": side,
            "key": card.sample.key,
            "shard": card.sample.shard,
            "index": card.sample.index,
            "title": card.sheet.title,
            "direction": card.sheet.direction,
            "strengths": list(card.strengths),
            "rows": list(card.rows),
            "noise": card.sheet.noise >= 0,
            "original": card.has_original,
            "mask": card.has_mask,
            "heat": limits[card.sheet],
            "psnr": None if psnr is None else _short(psnr[card.rows[0]]),
            "values": {
                name: [_short(values[row]) for row in card.rows] for name, values in columns.items()
            },
        }
        for card in cards
    ]


def sheet_data(
    numbers: RunNumbers, cards: Sequence[Card], planned: Sequence[GroupKey], sheet_cards: int
) -> list[dict[str, Any]]:
    """The contact sheets: their cards are among the first `sheet_cards`."""
    edits: dict[GroupKey, int] = {}
    for key, count in numbers.counts.items():
        edits[key.sheet] = edits.get(key.sheet, 0) + count
    members: dict[GroupKey, list[int]] = {sheet: [] for sheet in planned}
    for place, card in enumerate(cards[:sheet_cards]):
        members[card.sheet].append(place)
    titles = sheet_titles(planned)
    return [
        {
            "title": titles[sheet],
            "direction": sheet.direction,
            "edits": edits.get(sheet, 0),
            "cards": members[sheet],
        }
        for sheet in planned
        if members[sheet]
    ]


def sheet_titles(sheets: Sequence[GroupKey]) -> dict[GroupKey, str]:
    """Learned editors by name; discovered directions by region where that says all, else with their
    rank, and their id where directions of a library share both.
    """
    plain = all((s.rank, s.added, s.noise) == (0, "", -1) for s in sheets if not s.learned)
    titles = {s: s.region if plain and not s.learned else s.title for s in sheets}
    if len(set(titles.values())) < len(titles):
        titles = {s: f"{title} {s.direction[:8]}".rstrip() for s, title in titles.items()}
    return titles


def extreme_data(
    extremes: Sequence[Extreme], cards: Sequence[Card], measures: Sequence[Measure]
) -> list[dict[str, Any]]:
    """The lists of the best and worst edits that have a card: [card, position of its strength]."""
    place_of = {
        row: (number, at) for number, c in enumerate(cards) for at, row in enumerate(c.rows)
    }
    known = {measure.name for measure in measures}
    found = []
    for each in extremes:
        shown = [place_of[row] for row in each.rows if row in place_of]
        if shown and each.measure.name in known:
            found.append(
                {
                    "measure": each.measure.name,
                    "label": each.measure.label,
                    "end": each.end,
                    "cards": shown,
                }
            )
    return found


def _short(value: float) -> float:
    return float(f"{float(value):.5g}")
