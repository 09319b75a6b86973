"""`deltah regions`: look at regions that a run has learned, and name them. Each verb imports what
it needs when called.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Look at the regions that a run of `pipeline: region_model` has learned, and name them.",
)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run's output folder: a path or a URL.")],
    images: Annotated[int, typer.Option(min=1, help="Of the run, to show them on.")] = 8,
) -> None:
    """Draw every region on some images, for naming; print its share, and where the sheet is."""
    from cluster.views.regions import show_regions
    from pipelines.region_sheet import write_region_sheet

    show_regions(write_region_sheet(run, images))


@app.command()
def name(
    model: Annotated[str, typer.Argument(help="The run's folder, or its regions.safetensors.")],
    names: Annotated[
        list[str],
        typer.Argument(help="NUMBERS=NAME, such as 3,7,12=hair; an empty name takes it away."),
    ],
) -> None:
    """Give regions names; several with one name are one region."""
    from lib.masks.cluster_names import read_regions, write_names

    given = {number: text for pair in names for number, text in _pair(pair)}
    named = write_names(read_regions(model), given)
    for found, clusters in named.by_name.items():
        typer.echo(f"{found}: {', '.join(map(str, clusters))}")
    left = sorted(set(range(named.model.clusters)) - named.names.keys())
    if left:
        typer.echo(f"without a name: {', '.join(map(str, left))}")


def _pair(text: str) -> list[tuple[int, str]]:
    numbers, sign, name = text.partition("=")
    name = name.strip()
    try:
        found = [int(part) for part in numbers.split(",")]
    except ValueError:
        found = []
    if not found or not sign or name.isdigit():
        raise typer.BadParameter(
            f"expected NUMBERS=NAME, such as 3,7,12=hair, got {text!r}", param_hint="NAMES"
        )
    return [(number, name) for number in found]
