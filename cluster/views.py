"""What the reading verbs print: plan, status, verify, finalize. No torch, no ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.events import read_events
from cluster.progress import duration
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, not_learned, read_index
from lib.problems import Problem
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput, absolute

_MOST_REASONS = 20


def show_plan(config: RunConfig) -> None:
    """Print what a run of `config` will do and what is already done.

    Raises:
        Problem: the config does not fit its inputs, its model or its output folder.

    """
    from cluster.runner import located
    from pipelines.inputs import expand_inputs, missing_inputs, none_there
    from pipelines.plan import make_plan
    from pipelines.run_claim import run_claim

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
    _print(rows)


def show_status(root: str) -> None:
    """Print how far the run in folder `root` is."""
    folder = _opened(root)
    from lib.ledger.summary import summary

    found = summary(folder)
    counts = found.shards
    rows = [
        ("shards", f"{counts.committed:,} of {counts.inputs:,} done"),
        ("quarantined", f"{counts.quarantined:,}"),
        ("to do", f"{counts.pending:,}"),
        ("samples", f"{found.samples_ok:,} ok, {found.samples_err:,} errors"),
        ("edited images", f"{found.edits:,}"),
        *((f"marked, not {rule}", f"{count:,}") for rule, count in found.marked.items()),
        *((f"dropped, not {rule}", f"{count:,}") for rule, count in found.dropped.items()),
        ("directions of single images", f"{found.directions:,}"),
        *_learned(folder),
        ("image bytes", f"{found.image_bytes:,}"),
        *((f"errors: {kind}", f"{count:,}") for kind, count in found.error_kinds.items()),
        *_last_driver(folder),
    ]
    _print(rows)
    reasons = list(found.quarantined.items())
    if reasons:
        table = Table("quarantined shard", "reason")
        for shard, reason in reasons[:_MOST_REASONS]:
            table.add_row(escape(shard), escape(reason))
        Console().print(table)
        if len(reasons) > _MOST_REASONS:
            Console().print(f"and {len(reasons) - _MOST_REASONS} more, in quarantine/")
    for sentence in found.damaged:
        Console(stderr=True).print(sentence, markup=False, highlight=False)


def show_verification(root: str, *, deep: bool) -> int:
    """Print what does not add up; the exit code."""
    from lib.ledger.verification import verify

    found = verify(_opened(root), deep=deep)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for sentence in found.problems:
        console.print(f"problem: {sentence}")
    for sentence in found.notes:
        console.print(f"note: {sentence}")
    console.print(
        f"{found.inputs} shards: {found.committed} committed, {found.quarantined} quarantined;"
        f" {found.samples_ok} samples ok, {found.samples_err} in errors; {found.edits} edits;"
        f" {found.directions} directions;"
        f" {'all accounted for' if found.ok else f'{len(found.problems)} problems'}"
    )
    return 0 if found.ok else 1


def show_finalized(root: str) -> None:
    """Finalize and print the totals."""
    from lib.ledger.commit_record import CommitDamageError
    from lib.ledger.finalize import finalize

    try:
        index = finalize(_opened(root))
    except CommitDamageError as error:
        raise OSError(str(error)) from error
    totals = sorted(index["totals"].items())
    _print((name.replace("_", " "), f"{value:,}") for name, value in totals)
    for sentence in not_learned(index):
        Console(stderr=True).print(sentence, markup=False, highlight=False)


def _opened(root: str) -> RunFolder:
    folder = RunFolder(absolute(root))
    if not storage.exists(folder.run_url):
        raise Problem(f"{storage.redact(root)}: expected a run folder, found no run.json in it")
    return folder


def _missing(missing: Sequence[ShardInput]) -> list[tuple[str, str]]:
    if not missing:
        return []
    text = f"{len(missing):,}, such as {storage.redact(missing[0].url)}"
    return [("no file there", text)]


def _learned(folder: RunFolder) -> list[tuple[str, str]]:
    """What finalize learned from all images, and what it could not."""
    try:
        index = read_index(folder)
    except ValueError:  # of another release
        return []
    if index is None or not (index["merged"] or index["left_out"]):
        return []
    rows = sum(file["rows"] for file in index["merged"])
    left_out = [("not learned", sentence) for sentence in not_learned(index)]
    if any(file["name"] == "regions.safetensors" for file in index["merged"]):
        return [("regions of all images", "learned: see `deltah regions show`")]
    if LEARNED_REGIONS in index["left_out"]:
        return left_out
    return [("directions of all images", f"{rows:,}"), *left_out]


def _last_driver(folder: RunFolder) -> list[tuple[str, str]]:
    """When the last driver wrote something, and its rate."""
    done: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for event in read_events(folder):
        last = event
        if event["event"] == "run_started":
            done = []
        elif event["event"] == "shard_done":
            done.append(event)
    rows = []
    if last:
        rows.append(("last sign of life", f"{last['time']} ({last['event']})"))
    if done:
        model_s = sum(event["report"]["model_s"] for event in done)
        images = sum(event["report"]["n_in"] for event in done)
        rows.append(("last driver", f"{len(done):,} shards, {images:,} images"))
        if images:
            rows.append(("model time an image", duration_or_ms(model_s / images)))
    return rows


def duration_or_ms(seconds: float) -> str:
    """Milliseconds below ten seconds."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else duration(seconds)


def _print(rows: Iterable[tuple[str, str]]) -> None:
    table = Table(show_header=False)
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    Console().print(table)
