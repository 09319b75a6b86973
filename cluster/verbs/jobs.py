"""`deltah job`: follow, stop and list jobs of a Ray cluster. Each verb imports what it needs when
called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

RAY_PANEL = "On a Ray cluster"
DETACHED = 130
"""Exit code where Ctrl-C ended the watching, not the job."""

Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray dashboard: http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS.",
        rich_help_panel=RAY_PANEL,
    ),
]
_Job = Annotated[str, typer.Argument(help="The id that `submit` printed; see `deltah job list`.")]

app = typer.Typer(no_args_is_help=True, help="Follow, stop and list jobs of a Ray cluster.")


@app.command()
def follow(job: _Job, address: Address = None) -> None:
    """Show a job's log to its end, and exit with its exit code; Ctrl-C leaves the job alone."""
    client, where = connected(address)
    follow_to_end(client, job, where)


@app.command()
def stop(job: _Job, address: Address = None) -> None:
    """Let a job finish its shards in flight, begin no more, and end."""
    from cluster.submission import ray_job

    client, where = connected(address)
    details = ray_job.job_details(client, job)
    if not ray_job.stop(client, job):
        typer.echo(f"nothing to stop: {ray_job.ended(job, details).sentence}")
        return
    typer.echo(
        f"asked job {job} to stop: it finishes its shards in flight, and is killed if it takes"
        f" longer than {ray_job.drain_s(details)} s; what is not finished is begun again next time",
        err=True,
    )
    follow_to_end(client, job, where, stopping=True)


@app.command("list")
def list_jobs(address: Address = None) -> None:
    """The jobs that the cluster knows, the newest first."""
    from cluster.submission.job_client import plain_errors
    from cluster.views.jobs import show_jobs

    client, where = connected(address)
    with plain_errors(where):
        jobs = client.list_jobs()
    show_jobs(jobs)


def connected(address: str | None) -> tuple[JobSubmissionClient, str]:
    """A client of the head, and its URL; raises ClusterProblem."""
    from cluster.submission.job_client import head_address, job_client

    where = head_address(address)
    return job_client(where), where


def follow_to_end(
    client: JobSubmissionClient, job: str, where: str, *, stopping: bool = False
) -> None:
    """To the end of the job; leaves by its exit code."""
    from cluster.submission import ray_job
    from cluster.submission.job_client import HeadLostError

    again = f"deltah job follow {job} --address {where}"
    try:
        ended = ray_job.follow(client, job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(
            f"\nleft job {job} to itself; see it again: {again}; stop it:"
            f" {again.replace('follow', 'stop', 1)}",
            err=True,
        )
        raise typer.Exit(DETACHED) from None
    except HeadLostError as error:
        typer.echo(f"error: {error}; job {job} may go on; see it again: {again}", err=True)
        raise typer.Exit(1) from None
    typer.echo(ended.sentence, err=ended.exit_code != 0)
    raise typer.Exit(0 if stopping else ended.exit_code)
