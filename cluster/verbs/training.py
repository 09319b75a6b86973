"""`deltah train`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cluster.verbs.execution_options import Address, GpusPerWorker, Workers, overrides


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a preset.")],
    engine: Annotated[
        Literal["local", "ray"] | None, typer.Option(help="Overrides execution.engine.")
    ] = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value, such as training.steps=1000. Repeatable."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check everything, and say what it will cost.")
    ] = False,
) -> None:
    """Train an editor; run it again to go on where it stopped."""
    from rich.console import Console

    from cluster.submission.job_folder import refuse_fleeting_output
    from cluster.training.runner import run_training, show_cost
    from pipelines.config_file import load_tree
    from pipelines.training.config import TrainConfig
    from pipelines.training.presets import TRAIN_PRESETS

    changed = overrides(changes, engine=engine, workers=workers, gpus_per_worker=gpus_per_worker)
    loaded = load_tree(config, changed, TrainConfig, TRAIN_PRESETS)
    if address is not None and loaded.execution.engine != "ray":
        raise typer.BadParameter("expected --engine ray beside --address", param_hint="--address")
    refuse_fleeting_output(loaded.output.folder)
    console = Console(stderr=True)
    if check:
        show_cost(loaded, console)
        return
    raise typer.Exit(run_training(loaded, address=address, console=console))
