"""What `deltah evaluate` prints: one line for all and one a region, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lib.metrics.columns import SCORE_PREFIX
from lib.metrics.sums import Figure
from pipelines.number_texts import three

if TYPE_CHECKING:
    from lib.metrics.disentanglement import Row
    from pipelines.evaluation.figures import FigureRow
    from pipelines.evaluation.run_evaluation import Evaluation

_LOG_WIDTH = 160
"""Columns of a table that goes to a file."""
_COLUMNS = (
    ("edits", "edits"),
    ("in", "in_change"),
    ("out", "out_change"),
    ("ROIR", "roir"),
    ("SSIM in", "in_ssim"),
    ("SSIM out", "out_ssim"),
    ("linear.", "linearity"),
    ("symm.", "symmetry"),
    ("share", "diagonal_share"),
    ("balance", "balance"),
    ("L1", "l1"),
    ("L2", "l2"),
    ("SSIM", "ssim"),
    ("filtered", "filtered"),
)
_WITH_INTERVAL = frozenset({"roir"})
_MOST_ATTRIBUTES = 3
Scopes = Mapping[str, Mapping[str, Figure]]


def show_evaluation(evaluation: Evaluation) -> int:
    """Print the table, the matrix in short, and where all of it lies; returns the exit code."""
    console = _console()
    scopes = _by_scope(evaluation.figures)
    of_all = scopes["all"]
    console.print(_table(scopes))
    for line in _sentences(of_all):
        console.print(line, highlight=False)
    if evaluation.matrix:
        console.print(_matrix(evaluation.matrix))
    for notice in evaluation.notices:
        console.print(f"note: {notice}", highlight=False, markup=False)
    if evaluation.failures:
        console.print(
            f"{evaluation.failures:,} samples could not be measured: errors.parquet names each",
            highlight=False,
        )
    if evaluation.pending:
        console.print(
            f"{evaluation.pending} shards of the run are still to be done", highlight=False
        )
    console.print(
        f"{evaluation.shards} shards; figures with 95 % intervals in {evaluation.folder}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _table(scopes: Scopes) -> Table:
    """A line for `all` and for every region; directions stand in figures.parquet."""
    shown = [scope for scope in scopes if "/" not in scope]
    scores = sorted({m for s in shown for m in scopes[s] if m.startswith(SCORE_PREFIX)})
    columns = [
        *((title, metric) for title, metric in _COLUMNS if any(metric in scopes[s] for s in shown)),
        *((metric.removeprefix(SCORE_PREFIX), metric) for metric in scores),
    ]
    table = Table("region", box=None)
    for title, _ in columns:
        table.add_column(escape(title), justify="right")
    for scope in shown:
        cells = (_cell(metric, scopes[scope].get(metric)) for _, metric in columns)
        table.add_row(escape(scope), *cells)
    return table


def _cell(metric: str, figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if metric in ("edits", "filtered"):
        return f"{int(figure.value):,}"
    text = three(figure.value)
    if metric in _WITH_INTERVAL and math.isfinite(figure.low):
        text += f" ({three(figure.low)}–{three(figure.high)})"
    return text


def _sentences(of_all: Mapping[str, Figure]) -> Iterable[str]:
    images = int(of_all["images"].value)
    found = [f"{images:,} images"]
    for metric, text in (
        ("psnr", "PSNR {} dB" if "l1" in of_all else "reconstructed at PSNR {} dB"),
        ("reconstruction_ssim", "SSIM {}"),
        ("roir_original", "ROIR against the originals {} (median)"),
        ("frechet_distance", "Fréchet distance {}"),
        ("kernel_distance", "kernel distance {}"),
        ("posterior_gap", "posterior gap {}"),
    ):
        if metric in of_all:
            found.append(text.format(three(of_all[metric].value)))
    yield ", ".join(found)
    for metric, figure in of_all.items():
        what, _, rule = metric.partition(": ")
        if rule:
            how = "dropped" if what == "dropped" else "is broken first by"
            yield f"`{rule}` {how} {int(figure.value):,} edits"


def _matrix(rows: Iterable[Row]) -> Table:
    """Of every edit the attributes that it changes most."""
    table = Table("edit", "share", "effects, the largest first", box=None)
    for row in rows:
        largest = sorted(row.effects, key=lambda a: -abs(row.effects[a].value))[:_MOST_ATTRIBUTES]
        effects = "  ".join(f"{a} {_signed(row.effects[a])}" for a in largest)
        table.add_row(escape(row.edit), three(row.share.value), escape(effects))
    return table


def _signed(figure: Figure) -> str:
    return f"{figure.value:+.2f} ({figure.low:+.2f} to {figure.high:+.2f})"


def _by_scope(figures: Iterable[FigureRow]) -> Scopes:
    scopes: dict[str, dict[str, Figure]] = {}
    for row in figures:
        scopes.setdefault(row.scope, {})[row.metric] = row.figure
    return scopes


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)
