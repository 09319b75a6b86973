"""The HTML page of a direction library: its learned editors, the ranked table, and what each
direction does to held-out images; opens offline, written from the library's files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from lib.directions.library_rows import SHEETS, placed, read_record, read_rows
from lib.editors.editor_table import read_editor_rows
from lib.files import storage
from lib.plots.style import SCHEMES
from pipelines.heat_maps import heat_gradient
from pipelines.html_page import rendered, write_page
from pipelines.library_plots import plotted, roir_against_strength, score_against_roir
from pipelines.library_sheets import COLUMNS, FRAME, HEAT_LIMIT, gap

MAX_ROWS = 500
MAX_SHEETS = 24
"""Of each region; the table has them all."""


@dataclass(frozen=True, slots=True)
class Card:
    """One direction's sheet on the page."""

    row: Mapping[str, Any]
    file: str
    width: int
    height: int
    images: int
    """Rows of the sheet."""

    @property
    def gap_percent(self) -> float:
        """Between two columns, of the width."""
        side = (self.width - gap(self.width // len(COLUMNS)) * (len(COLUMNS) - 1)) // len(COLUMNS)
        return 100 * gap(side) / self.width


def write_library_report(root: str) -> str:
    """Write report/index.html into the library; returns the page's path or URL.

    Raises:
        ConfigProblem: there is no library at `root`, or it is empty.
        OSError: the page could not be written.
    """
    record, rows = read_record(root), read_rows(root)
    cards, left_out = _cards(root, rows)
    scored = [row for row in rows if row["score"] is not None]
    unscored = [row for row in rows if row["score"] is None] if scored else []
    listed = scored or rows
    shown = plotted(rows)
    files = {}
    for scheme in SCHEMES if shown else ():
        files[f"plots/score-{scheme}.svg"] = score_against_roir(shown, scheme)
        files[f"plots/strength-{scheme}.svg"] = roir_against_strength(shown, scheme)
    regions: dict[str, int] = {}
    for row in rows:
        regions[row["region"]] = regions.get(row["region"], 0) + 1
    page = rendered(
        "library.html.j2",
        name="/".join(part for part in storage.redact(root).split("/")[-2:] if part),
        record=record,
        built=record.get("built"),
        scored=record.get("scored"),
        rows=listed[:MAX_ROWS],
        rows_left_out=max(0, len(listed) - MAX_ROWS),
        unscored=unscored[:MAX_ROWS],
        unscored_count=len(unscored),
        framed=_framed(record, scored),
        frame="rgb({} {} {})".format(*FRAME),
        directions=len(rows),
        editors=read_editor_rows(root),
        regions=dict(sorted(regions.items())),
        with_factors=any(row["factor"] for row in rows),
        placed=placed,
        cards=cards,
        cards_left_out=left_out,
        columns=COLUMNS,
        gradient=heat_gradient(),
        heat_limit=HEAT_LIMIT,
        has_plots=bool(shown),
    )
    return write_page(root, page, files)


def _cards(root: str, rows: list[dict[str, Any]]) -> tuple[dict[str, list[Card]], dict[str, int]]:
    """(region -> its best directions' sheets, region -> how many more there are)."""
    there = set(storage.list_names(storage.join(root, SHEETS)))
    cards: dict[str, list[Card]] = {}
    left_out: dict[str, int] = {}
    for row in rows:
        name = f"{row['id']}.webp"
        if name not in there or row["score"] is None:
            continue
        own = cards.setdefault(row["region"], [])
        if len(own) >= MAX_SHEETS:
            left_out[row["region"]] = left_out.get(row["region"], 0) + 1
            continue
        data = storage.read_bytes(storage.join(root, SHEETS, name))
        with Image.open(BytesIO(data)) as picture:
            width, height = picture.size
        images = round(height * len(COLUMNS) / width)
        own.append(Card(row, f"../{SHEETS}/{name}", width, height, images))
    return dict(sorted(cards.items())), left_out


def _framed(record: Mapping[str, Any], scored: list[dict[str, Any]]) -> bool:
    """Whether some sheet may have a framed row."""
    images = len(record.get("scored", {}).get("images", ()))
    return any(row["scored_images"] < images for row in scored)
