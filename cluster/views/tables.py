"""The two-column table in which verbs print what they found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Label and value a row, on standard output."""
    Console().print(row_table(rows))


def row_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Label and value a row."""
    table = Table(show_header=False)
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    return table
