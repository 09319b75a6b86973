"""The folder in which Ray begins a job: a copy of what was sent, deleted soon after the job."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from lib.problems import ConfigProblem
from pipelines.inputs import absolute

_UNPACKED = ("runtime_resources", "working_dir_files")
"""The folders of Ray's temp folder below which it unpacks working folders."""


def refuse_fleeting_output(folder: str) -> None:
    """Raises ConfigProblem where a run would write into the folder of a Ray job.

    `deltah submit` makes paths absolute where it is called; `ray job submit` leaves relative ones.
    """
    parts = Path(absolute(folder)).parts
    if "://" not in folder and _UNPACKED in pairwise(parts):
        raise ConfigProblem(
            "output.folder: expected an absolute path or a URL, because Ray deletes the folder of"
            f" this job when it has ended; got {folder!r}"
        )
