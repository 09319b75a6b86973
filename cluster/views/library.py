"""What the verbs of a direction library print. No torch, no ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.progress import duration, redrawn
from lib.directions.library_rows import placed
from lib.files import storage
from lib.problems import ConfigProblem
from pipelines.number_texts import three

if TYPE_CHECKING:
    from lib.editors.editor_record import EditorRecord
    from pipelines.library_build import GroupReport
    from pipelines.library_score import Scored
    from pipelines.measurement import Progress

_LOG_WIDTH = 160
"""Columns of a table that goes to a file."""


def show_built(root: str, directions: int, groups: Sequence[GroupReport]) -> None:
    """Print what was merged into what."""
    table = Table("region", "method", box=None)
    for heading in ("found", "in the library", "largest support"):
        table.add_column(heading, justify="right")
    for group in groups:
        numbers = (group.found, group.kept, group.largest_support)
        table.add_row(escape(group.region), group.method, *(f"{n:,}" for n in numbers))
    console = _console()
    console.print(table)
    console.print(f"{directions:,} directions in {storage.redact(root)}", highlight=False)


@dataclass(slots=True)
class ScoringTally:
    """What scoring said last, and when it began to measure."""

    progress: Progress | None = None
    begun_at: float = 0.0

    def add(self, progress: Progress, now: float) -> None:
        """Take in what scoring reports; `now` is a monotonic clock in seconds."""
        if self.progress is None:
            self.begun_at = now
        self.progress = progress

    def line(self, now: float) -> str:
        """The progress line."""
        found = self.progress
        if found is None:
            return "score | loading the model and inverting the images"
        measured = found.tries_done - found.tries_found
        eta = "?"
        if measured:
            left = (now - self.begun_at) * (found.tries - found.tries_done) / measured
            eta = duration(left)
        earlier = f" ({found.tries_found:,} by an earlier call)" if found.tries_found else ""
        return (
            f"score {found.images_done}/{found.images} images"
            f" | {found.tries_done:,}/{found.tries:,} edits searched{earlier} | ETA {eta}"
        )


@contextmanager
def scoring_line(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """What takes the reports of scoring and shows them on standard error: one line that is redrawn
    on a terminal, a plain one every 30 s in a log.
    """
    tally = ScoringTally()
    with redrawn(tally.line, console):
        yield lambda progress: tally.add(progress, time.monotonic())


def show_scored(scored: Scored) -> None:
    """Print what scoring did, and the best of each region."""
    root = scored.library.root
    sentence = f"{scored.directions:,} directions scored on {scored.images} held-out images"
    if scored.skipped:
        sentence += f", {scored.skipped} could not be used"
    if scored.unreached:
        sentence += (
            f"; in {scored.unreached} of {scored.directions * scored.images:,} cases no strength"
            " made the change"
        )
    console = _console()
    console.print(f"{sentence}. Look at it: deltah library show {root}", highlight=False)


def show_rows(
    root: str,
    rows: Sequence[Mapping[str, Any]],
    editors: Sequence[EditorRecord] = (),
    *,
    region: str | None,
    method: str | None,
    top: int | None,
) -> None:
    """Print the learned editors of a library, and the ranked table of its directions.

    Raises:
        ConfigProblem: nothing is of that region and method.
    """
    shown = [
        row for row in rows if region in (None, row["region"]) and method in (None, row["method"])
    ]
    learned = [e for e in editors if region in (None, e.region) and method in (None, e.method)]
    if not shown and not learned:
        regions = {row["region"] for row in rows} | {editor.region for editor in editors}
        methods = {row["method"] for row in rows} | {editor.method for editor in editors}
        raise ConfigProblem(
            f"{storage.redact(root)}: no direction of region {region or 'any'} and method"
            f" {method or 'any'}; there are regions {sorted(regions)} and methods {sorted(methods)}"
        )
    if learned:
        _console().print(_editors(learned))
    if shown:
        _console().print(_ranking(shown, top))


def _editors(editors: Sequence[EditorRecord]) -> Table:
    table = Table("learned", "label", "type", "region", "method", "window", "images", box=None)
    table.columns[-1].justify = "right"
    for editor in editors:
        window = "{} to {}".format(*editor.window)
        cells = (editor.id, editor.label, editor.type, editor.region, editor.method, window)
        table.add_row(*map(escape, cells), f"{editor.images:,}")
    return table


def _ranking(shown: Sequence[Mapping[str, Any]], top: int | None) -> Table:
    table = Table("id", "region", box=None)
    for heading in ("rank", "score", "ROIR", "strength", "consist.", "linear."):
        table.add_column(heading, justify="right")
    for heading in ("factor", "method", "from", "label"):
        table.add_column(heading)
    seen: dict[str, int] = {}
    for row in shown:
        seen[row["region"]] = seen.get(row["region"], 0) + 1
        if top is not None and seen[row["region"]] > top:
            continue
        factor = f"{row['factor']} {row['factor_change']:+.2f}" if row["factor"] else ""
        numbers = (row[n] for n in ("score", "roir", "strength", "consistency", "linearity"))
        texts = (
            row["id"],
            row["region"],
            str(row["rank"]),
            *map(three, numbers),
            factor,
            row["method"],
            placed(row),
            row["label"] or "",
        )
        table.add_row(*map(escape, texts))
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)
