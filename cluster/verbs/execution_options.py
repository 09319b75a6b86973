"""Options of the command line that stand for values of a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of a Ray head. Default: RAY_ADDRESS, else a Ray of its own."),
]
Workers = Annotated[int | None, typer.Option(help="Overrides execution.workers.")]
GpusPerWorker = Annotated[float | None, typer.Option(help="Overrides execution.gpus_per_worker.")]


def overrides(changes: Sequence[str] | None, **execution: object) -> list[str]:
    """`--set` texts, then execution.NAME=VALUE for every option that was given."""
    given = {key: value for key, value in execution.items() if value is not None}
    return [*(changes or ()), *(f"execution.{key}={value}" for key, value in given.items())]
