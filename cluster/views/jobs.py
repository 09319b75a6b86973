"""What `deltah job list` prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.progress import duration
from cluster.submission.ray_job import FOLDER_KEY

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails


def show_jobs(jobs: Sequence[JobDetails]) -> None:
    """Print a row for each job that was submitted, the newest first."""
    sent = [job for job in jobs if job.submission_id]
    if not sent:
        Console(stderr=True).print("the cluster knows no submitted job")
        return
    table = Table()
    for heading in ("job", "status", "exit code", "begun (UTC)", "took", "run folder"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "run folder")
    now_ms = datetime.now(UTC).timestamp() * 1000
    for job in sorted(sent, key=lambda each: -(each.start_time or 0)):
        begun = job.start_time or 0
        table.add_row(
            escape(str(job.submission_id)),
            job.status.value.lower(),
            "" if job.driver_exit_code is None else str(job.driver_exit_code),
            f"{datetime.fromtimestamp(begun / 1000, UTC):%Y-%m-%d %H:%M}" if begun else "",
            duration(((job.end_time or now_ms) - begun) / 1000) if begun else "",
            escape((job.metadata or {}).get(FOLDER_KEY, "")),
        )
    Console().print(table)
