"""The run folder that a reading verb was pointed to."""

from __future__ import annotations

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.problems import Problem
from pipelines.inputs import absolute


def existing_run(root: str) -> RunFolder:
    """The folder at a path or URL; raises Problem where there is no run in it."""
    folder = RunFolder(absolute(root))
    if not storage.exists(folder.run_url):
        raise Problem(f"{storage.redact(root)}: expected a run folder, found no run.json in it")
    return folder
