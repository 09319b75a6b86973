"""What `deltah plan` prints. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.views.tables import print_rows
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput, expand_inputs, missing_inputs, none_there
from pipelines.located import located
from pipelines.plan import make_plan
from pipelines.run_claim import run_claim


def show_plan(config: RunConfig) -> None:
    """Print what a run of `config` will do and what is already done.

    Raises:
        Problem: the config does not fit its inputs, its model or its output folder.

    """
    config = located(config)
    inputs = expand_inputs(config.input.shards)
    folder = RunFolder(config.output.folder)
    record = run_claim(config)
    if storage.exists(folder.run_url):
        folder.open_run(record)  # there already, so this only compares
    counts = folder.counts(shard.name for shard in inputs)
    missing = missing_inputs(inputs)
    if len(missing) == len(inputs) and counts.pending:
        raise none_there(inputs)
    execution = config.execution
    rows = [
        ("shards", f"{counts.inputs:,}"),
        *_missing(missing),
        ("done", f"{counts.committed:,}"),
        ("quarantined", f"{counts.quarantined:,}"),
        ("to do", f"{counts.pending:,}"),
        *make_plan(config, inputs).rows(),
        ("engine", f"{execution.engine}, {execution.workers} workers"),
        ("output folder", storage.redact(folder.root)),
        ("fingerprint", str(record["fingerprint"])[:16]),
    ]
    print_rows(rows)


def _missing(missing: Sequence[ShardInput]) -> list[tuple[str, str]]:
    if not missing:
        return []
    text = f"{len(missing):,}, such as {storage.redact(missing[0].url)}"
    return [("no file there", text)]
