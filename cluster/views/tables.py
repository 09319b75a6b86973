"""The two-column table in which verbs print what they found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_rows(rows: Iterable[tuple[str, str]], title: str | None = None) -> None:
    """Label and value a row, on standard output."""
    Console().print(row_table(rows, title))


def row_table(rows: Iterable[tuple[str, str]], title: str | None = None) -> Table:
    """Label and value a row."""
    table = Table(show_header=False, title=title, title_justify="left")
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    return table
