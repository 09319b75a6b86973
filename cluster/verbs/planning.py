"""`deltah plan`: what a run will do and cost. It imports what it needs when it is called."""

from __future__ import annotations

from typing import Annotated

import typer


def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a preset.")],
    probe: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N images through the pipeline here, and measure; 4 tell a good deal.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Numbers of workers to tell the time for."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value, such as execution.workers=64. Repeatable."),
    ] = None,
) -> None:
    """Check a config and say what it will do and cost, without starting anything."""
    from cluster.views.plan import PlanOptions, show_plan
    from pipelines.config_file import load_config

    options = PlanOptions(probe or 0, None if at is None else _numbers(at), as_json)
    try:
        show_plan(load_config(config, changes or ()), options)
    except KeyboardInterrupt:
        typer.echo("stopped; nothing is left of the probe", err=True)
        raise typer.Exit(1) from None


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"expected whole numbers of workers with commas between them, such as 8,64,512, got"
            f" {text!r}",
            param_hint="--at",
        )
    return numbers
