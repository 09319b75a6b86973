"""`deltah submit`: runs on other machines. It imports what it needs when called, never torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.verbs.execution_options import overrides
from cluster.verbs.jobs import RAY_PANEL, Address, connected, follow_to_end
from lib.problems import ConfigProblem

if TYPE_CHECKING:
    from pipelines.config import RunConfig

_KUBERNETES, _SLURM = "For Kubernetes", "For Slurm"

_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value, such as edit.strengths=[-0.1,0.1]. Repeatable."),
]
_Follow = Annotated[
    bool,
    typer.Option(
        "--follow/--no-follow",
        help="Show the job's log to the end and exit as it does.",
        rich_help_panel=RAY_PANEL,
    ),
]
_Installed = Annotated[
    bool,
    typer.Option(
        "--installed",
        help="The cluster's machines have deltah: send no code.",
        rich_help_panel=RAY_PANEL,
    ),
]
_RuntimeEnv = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file with more of Ray's runtime environment, such as `pip: [...]`.",
        rich_help_panel=RAY_PANEL,
    ),
]
_Image = Annotated[
    str | None, typer.Option(help="A container with deltah.", rich_help_panel=_KUBERNETES)
]
_MinWorkers = Annotated[
    int | None,
    typer.Option(
        help="Begin with so many; Ray's autoscaler adds pods up to --workers.",
        rich_help_panel=_KUBERNETES,
    ),
]
_Namespace = Annotated[str | None, typer.Option(rich_help_panel=_KUBERNETES)]
_ServiceAccount = Annotated[
    str | None, typer.Option(help="Of the pods.", rich_help_panel=_KUBERNETES)
]
_Secret = Annotated[
    str | None,
    typer.Option(
        help="Its keys become the pods' environment: credentials of the object store.",
        rich_help_panel=_KUBERNETES,
    ),
]
_NodeCount = Annotated[
    int,
    typer.Option(
        min=1,
        help="Over which the workers are spread evenly: nodes, or tasks of the array.",
        rich_help_panel=_SLURM,
    ),
]
_Array = Annotated[
    bool,
    typer.Option(
        "--array",
        help="Parts that know nothing of each other, instead of one Ray cluster.",
        rich_help_panel=_SLURM,
    ),
]


def submit(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a preset.")],
    changes: _Set = None,
    workers: Annotated[int | None, typer.Option(help="Overrides execution.workers.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="Overrides execution.gpus_per_worker.")
    ] = None,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try shards again that were given up.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the job. Default: from the config's name.")
    ] = None,
    drain_s: Annotated[
        int,
        typer.Option(
            min=1, help="Seconds in which a job that is stopped may finish its shards in flight."
        ),
    ] = 600,
    kuberay: Annotated[
        bool, typer.Option("--kuberay", help="Write a RayJob for `kubectl apply -f` instead.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write a script for `sbatch` instead.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File of --kuberay and --slurm. Default: stdout."),
    ] = None,
    address: Address = None,
    follow_job: _Follow = True,
    installed: _Installed = False,
    runtime_env: _RuntimeEnv = None,
    image: _Image = None,
    min_workers: _MinWorkers = None,
    namespace: _Namespace = None,
    service_account: _ServiceAccount = None,
    env_from_secret: _Secret = None,
    nodes: _NodeCount = 1,
    array: _Array = False,
) -> None:
    """Run a config on a Ray cluster, or write what Kubernetes or Slurm need to run it.

    The config is checked as far as this machine can see, and travels whole. Submit it again to go
    on after a stop, a crash or a preemption.
    """
    _refuse_mixed(context, kuberay=kuberay, slurm=slurm)
    loaded = _travelling(config, changes, workers, gpus_per_worker, drain_s)
    job_name = _name(config) if name is None else name
    if kuberay:
        from cluster.submission.kuberay import Pods, rayjob_manifest

        if image is None:
            raise typer.BadParameter(
                "expected the image to run, such as the one of the Dockerfile", param_hint="--image"
            )
        pods = Pods(
            image=image,
            name=job_name,
            namespace=namespace,
            service_account=service_account,
            secret=env_from_secret,
            min_workers=loaded.execution.workers if min_workers is None else min_workers,
            drain_s=drain_s,
            retry_quarantined=retry_quarantined,
        )
        _write(rayjob_manifest(loaded, pods), output, "kubectl apply -f")
        return
    if slurm:
        from cluster.submission.slurm import Nodes, batch_script

        asked = Nodes(job_name, nodes, array, drain_s, retry_quarantined)
        _write(batch_script(loaded, asked), output, "sbatch")
        return
    from cluster.submission import ray_job
    from cluster.submission.code_package import code_package

    more = _runtime_env(runtime_env)
    code = None if installed else code_package()
    sent = ray_job.Submission(loaded, job_name, code, drain_s, retry_quarantined, more)
    client, where = connected(address)
    job = ray_job.submit(client, sent)
    with_code = f" with the code of this checkout ({code})" if code else ""
    typer.echo(f"submitted job {job} to {where}{with_code}", err=True)
    if follow_job:
        follow_to_end(client, job, where)
    typer.echo(job)


def _refuse_mixed(context: typer.Context, *, kuberay: bool, slurm: bool) -> None:
    """Options of another destination than the chosen one are mistakes, not to be passed over."""
    if kuberay and slurm:
        raise typer.BadParameter("expected --kuberay or --slurm, got both")
    chosen = _KUBERNETES if kuberay else _SLURM if slurm else RAY_PANEL
    wanted = {
        _KUBERNETES: "expected --kuberay beside it",
        _SLURM: "expected --slurm beside it",
        RAY_PANEL: "it is for the Jobs API of Ray, not for a file",
    }
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        panel = getattr(option, "rich_help_panel", None)
        if panel in wanted and panel != chosen:
            raise typer.BadParameter(wanted[panel], param_hint=option.opts[0])
        if option.name == "output" and chosen == RAY_PANEL:
            raise typer.BadParameter("expected --kuberay or --slurm beside it", param_hint="-o")


def _travelling(
    config: str,
    changes: list[str] | None,
    workers: int | None,
    gpus_per_worker: float | None,
    drain_s: int,
) -> RunConfig:
    from cluster.submission.travelling_config import drained_within, local_warning, travelling
    from pipelines.config_file import load_config

    changed = overrides(changes, engine="ray", workers=workers, gpus_per_worker=gpus_per_worker)
    loaded = drained_within(travelling(load_config(config, changed)), drain_s)
    if warning := local_warning(loaded):
        typer.echo(f"note: {warning}", err=True)
    return loaded


def _name(config: str) -> str:
    """A job's name from that of a file or preset: small letters, digits and dashes."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(config).stem.lower()).strip("-")
    return (stem if stem[:1].isalpha() else f"run-{stem}")[:40].rstrip("-")


def _write(text: str, output: Path | None, command: str) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    output.write_text(text)
    typer.echo(f"wrote {output}; start it with: {command} {output}", err=True)


def _runtime_env(path: Path | None) -> Mapping[str, Any]:
    from pipelines.config_file import read_values

    values = {} if path is None else read_values(str(path))
    for key in ("working_dir", "py_modules"):
        if key in values:
            raise ConfigProblem(
                f"{path}: {key}: expected none, because submit sends the code itself"
            )
    return values
