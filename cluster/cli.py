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
from cluster.verbs.execution_options import Address, GpusPerWorker, Workers, overrides
from cluster.verbs.jobs import app as job
from cluster.verbs.library import app as library
from cluster.verbs.planning import plan
from cluster.verbs.regions import app as regions
from cluster.verbs.submission import submit
from cluster.verbs.training import train
from lib.files.redaction import redact
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
app.add_typer(regions, name="regions")
app.add_typer(job, name="job")
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
    training_faces: Annotated[
        bool,
        typer.Option("--training-faces", help="Only make the inputs of the presets of `train`."),
    ] = False,
) -> None:
    """Make faces, edit them with the embedded model on this machine, and show the result."""
    from cluster.demo import make_faces, make_training_faces, run_demo

    if training_faces:
        from rich.console import Console

        make_training_faces(output, Console(stderr=True))
        return
    if faces_only:
        from rich.console import Console

        make_faces(output, Console(stderr=True))
        return
    _leave(run_demo(output, engine, workers))


app.command()(plan)


@app.command()
def run(
    config: _Config,
    engine: Annotated[Engine | None, typer.Option(help="Overrides execution.engine.")] = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    workers_per_gpu: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Instead of --gpus-per-worker: so many workers share each GPU, and its memory.",
        ),
    ] = None,
    changes: _Set = None,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try shards again that were given up.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log a line a shard, with the time.")
    ] = False,
    shard_of: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only every N-th shard from the I-th on, 0/N to (N-1)/N; others do the rest.",
        ),
    ] = None,
) -> None:
    """Edit all shards of a config; run it again to go on where it stopped."""
    if verbose:
        logging.getLogger("cluster").setLevel(logging.INFO)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    from cluster.runner import run as run_config
    from cluster.shard_part import ShardPart
    from cluster.submission.job_folder import refuse_fleeting_output
    from pipelines.config_file import load_config

    if workers_per_gpu is not None:
        if gpus_per_worker is not None:
            raise typer.BadParameter(
                "expected it or --gpus-per-worker, not both", param_hint="--workers-per-gpu"
            )
        gpus_per_worker = 1 / workers_per_gpu
    part = ShardPart.parse(shard_of) if shard_of is not None else None
    changed = overrides(changes, engine=engine, workers=workers, gpus_per_worker=gpus_per_worker)
    loaded = load_config(config, changed)
    if address is not None and loaded.execution.engine != "ray":
        raise typer.BadParameter("expected --engine ray beside --address", param_hint="--address")
    if workers_per_gpu is not None and loaded.execution.engine != "ray":
        raise typer.BadParameter(
            "expected --engine ray beside it; without Ray there is one worker",
            param_hint="--workers-per-gpu",
        )
    refuse_fleeting_output(loaded.output.folder)
    _leave(run_config(loaded, address=address, retry_quarantined=retry_quarantined, part=part))


app.command()(train)
app.command()(submit)


@app.command()
def status(
    run_folder: _RunFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until the run is over.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Count the samples of every commit, however many.")
    ] = False,
    events: Annotated[int, typer.Option(min=0, help="Also print so many of the last events.")] = 0,
) -> None:
    """Say how far a run is, from what it has left; works from anywhere and after a crash."""
    from cluster.views.status import show_status, watch_status

    if watch:
        watch_status(run_folder, deep=deep, interval_s=interval, as_json=as_json)
    else:
        show_status(run_folder, deep=deep, events=events, as_json=as_json)


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


app.command()(evaluate)


@app.command()
def show(
    run_folder: _RunFolder,
    open_it: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, on a terminal.")
    ] = True,
) -> None:
    """Write the HTML page of a run or a training and print where it is."""
    from lib.files import storage

    if "training.json" in storage.list_names(run_folder):
        from pipelines.training.page import write_training_page

        path = write_training_page(run_folder)
    else:
        from pipelines.report.page import write_report

        path = write_report(run_folder)
    typer.echo(path)
    if open_it and sys.stdout.isatty():
        typer.launch(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; always ends in SystemExit."""
    logging.captureWarnings(capture=True)
    handler = _Stderr()
    handler.setFormatter(_Redacted("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        app(None if arguments is None else list(arguments))
    except Problem as problem:
        typer.echo(f"error: {redact(str(problem))}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {type(error).__name__}: {redact(str(error))}", err=True)
        sys.exit(1)


class _Redacted(logging.Formatter):
    """What libraries log may hold credentials too."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is now: the progress line replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _leave(outcome: Outcome) -> None:
    typer.echo(redact(outcome.sentence), err=outcome.exit_code != 0)
    if outcome.threads_left:  # they may never end, and an orderly exit would wait for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(outcome.exit_code)
    raise typer.Exit(outcome.exit_code)
