"""What `deltah regions show` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.region_sheet import RegionSheet


def show_regions(sheet: RegionSheet) -> None:
    """A line a region, and where the picture is."""
    table = Table("region", "name", "share", "in images", "area where it is")
    for part in sheet.parts:
        table.add_row(
            str(part.number),
            escape(part.name),
            f"{part.share:.1%}",
            f"{part.present:.0%}",
            f"{part.least:.1%} to {part.most:.1%}",
        )
    Console().print(table)
    Console(soft_wrap=True, highlight=False, markup=False).print(sheet.path)
