"""The command line. Every verb imports what it needs when it is called, so that help is instant.

Exit codes: 0 all done, 1 failed, 2 bad config or usage, 3 finished with quarantined shards,
4 stopped by the error budget.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cluster.verbs.evaluation import evaluate
from cluster.verbs.library import app as library
from cluster.verbs.planning import plan
from cluster.verbs.regions import app as regions
from lib.problems import Problem

if TYPE_CHECKING:
    from cluster.settlement import Outcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Edited-image datasets and direction libraries from pretrained diffusion models.",
)
app.add_typer(library, name="library")
app.command()(plan)
app.command()(evaluate)
app.add_typer(regions, name="regions")
Engine = Literal["local", "ray"]
_Config = Annotated[str, typer.Argument(help="A YAML file, or the name of a preset.")]
_RunFolder = Annotated[str, typer.Argument(help="A run's output folder: a path or a URL.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value, such as edit.strengths=[-0.1,0.1]. Repeatable."),
]


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Where everything goes.")] = "demo-output",
    engine: Annotated[Engine, typer.Option(help="Where the work is done.")] = "ray",
    workers: Annotated[int | None, typer.Option(min=1, help="2 with ray, 1 with local.")] = None,
    faces_only: Annotated[
        bool, typer.Option("--faces-only", help="Only make the inputs of the demo's presets.")
    ] = False,
) -> None:
    """Make faces, edit them with the embedded model on this machine, and show the result."""
    from cluster.demo import make_faces, run_demo

    if faces_only:
        from rich.console import Console

        make_faces(output, Console(stderr=True))
        return
    _leave(run_demo(output, engine, workers))


@app.command()
def run(
    config: _Config,
    engine: Annotated[Engine | None, typer.Option(help="Overrides execution.engine.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of a Ray head. Default: RAY_ADDRESS, else a Ray of its own."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Overrides execution.workers.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="Overrides execution.gpus_per_worker.")
    ] = None,
    changes: _Set = None,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try shards again that were given up.")
    ] = False,
) -> None:
    """Edit all shards of a config; run it again to go on where it stopped."""
    from cluster.runner import run as run_config
    from pipelines.config_file import load_config

    overrides = list(changes or ())
    for key, value in (
        ("engine", engine),
        ("workers", workers),
        ("gpus_per_worker", gpus_per_worker),
    ):
        if value is not None:
            overrides.append(f"execution.{key}={value}")
    loaded = load_config(config, overrides)
    if address is not None and loaded.execution.engine != "ray":
        raise typer.BadParameter("expected --engine ray beside --address", param_hint="--address")
    outcome = run_config(loaded, address=address, retry_quarantined=retry_quarantined)
    _leave(outcome)


@app.command()
def status(run_folder: _RunFolder) -> None:
    """Say how far a run is, from what it has left; works from anywhere and after a crash."""
    from cluster.views.status import show_status

    show_status(run_folder)


@app.command()
def verify(
    run_folder: _RunFolder,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every file and compare hashes.")
    ] = False,
) -> None:
    """Prove that every shard and every sample is accounted for exactly once."""
    from cluster.views.verification import show_verification

    raise typer.Exit(show_verification(run_folder, deep=deep))


@app.command()
def finalize(run_folder: _RunFolder) -> None:
    """Rebuild manifest, index and dataset card from the commits; only while no run is working."""
    from cluster.views.verification import show_finalized

    show_finalized(run_folder)


@app.command()
def show(
    run_folder: _RunFolder,
    open_it: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, on a terminal.")
    ] = True,
) -> None:
    """Write the HTML report of a run and print where it is."""
    from pipelines.report.page import write_report

    path = write_report(run_folder)
    typer.echo(path)
    if open_it and sys.stdout.isatty():
        typer.launch(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; always ends in SystemExit."""
    logging.captureWarnings(capture=True)
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        app(None if arguments is None else list(arguments))
    except Problem as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {type(error).__name__}: {error}", err=True)
        sys.exit(1)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is now: the progress line replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _leave(outcome: Outcome) -> None:
    typer.echo(outcome.sentence, err=outcome.exit_code != 0)
    if outcome.threads_left:  # they may never end, and an orderly exit would wait for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)
