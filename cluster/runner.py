"""A run from its config to its exit code: claim the folder, skip what is done, drive, finalize.

Where nothing is left to do, neither torch nor ray is imported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from cluster.driver import Driver
from cluster.engines import check_engine, open_pool, shard_worker
from cluster.events import EventLog
from cluster.orders import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_QUARANTINED,
    Rules,
    Stop,
)
from cluster.pools import ClusterLostError, WorkerFactory
from cluster.progress import Tally
from cluster.schedule import Schedule
from lib.files import storage
from lib.ledger import quarantine
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, RunIndex, read_index
from lib.models.checkpoint import EMBEDDED
from lib.models.hub import comes_from_hub
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput, absolute, expand_inputs, missing_inputs, none_there
from pipelines.mask_models import located as located_segment
from pipelines.run_claim import run_claim

_WORK = {
    "edit_dataset": "edit",
    "direction_library": "find",
    "store_latents": "invert",
    "region_model": "look",
}
"""Pipeline -> what is done with the shards, in a word."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int
    sentence: str
    shards: int
    done: int
    quarantined: int
    threads_left: bool = False
    """Threads of this process still run abandoned shards; it must be left by `os._exit`."""


def run(
    config: RunConfig,
    *,
    address: str | None = None,
    retry_quarantined: bool = False,
    factory: WorkerFactory = shard_worker,
    console: Console | None = None,
    rules: Rules | None = None,
) -> Outcome:
    """Bring every input shard of `config` to its end.

    Raises:
        Problem: config, inputs, model, folder or cluster are refused; nothing was begun.
        OSError: the inputs cannot be listed, or the run folder cannot be read or claimed.

    """
    config = located(config)
    inputs = expand_inputs(config.input.shards)
    folder = RunFolder(config.output.folder)
    record = run_claim(config)
    names = [shard.name for shard in inputs]
    if len(missing_inputs(inputs)) == len(inputs) and folder.pending(names):
        raise none_there(inputs)
    folder.open_run(record)
    _warn_of_moved(folder.inputs(), inputs)
    folder.add_inputs({shard.name: shard.url for shard in inputs})
    if retry_quarantined:
        for name in folder.quarantined_names().intersection(shard.name for shard in inputs):
            quarantine.release(folder, name)
    pending = set(folder.pending(names))
    if not pending:
        return _settled(folder, names, None)
    check_engine(config.execution)
    todo = {shard.name: shard.url for shard in inputs if shard.name in pending}
    stop, threads_left = _drive(
        config,
        folder,
        inputs,
        todo,
        str(record["fingerprint"]),
        address,
        factory,
        console or Console(stderr=True),
        rules,
    )
    return replace(_settled(folder, names, stop), threads_left=threads_left)


def located(config: RunConfig) -> RunConfig:
    """`config` with absolute local paths: workers do not share this process's folder."""
    update: dict[str, object] = {
        "output": config.output.model_copy(
            update={"folder": absolute(config.output.folder).rstrip("/")}
        )
    }
    paths = {
        name: absolute(path)
        for name in ("path", "transport", "classifier", "model")
        if (path := getattr(config.discover, name, None)) not in (None, EMBEDDED)
    }
    if paths:
        update["discover"] = config.discover.model_copy(update=paths)
    update["evaluate"] = config.evaluate.located(absolute)
    if config.invert.latents is not None:
        path = absolute(config.invert.latents).rstrip("/")
        update["invert"] = config.invert.model_copy(update={"latents": path})
    update["segment"] = located_segment(config.segment, absolute)
    checkpoint = config.model.checkpoint
    if checkpoint != EMBEDDED and not comes_from_hub(checkpoint):
        update["model"] = config.model.model_copy(update={"checkpoint": absolute(checkpoint)})
    return config.model_copy(update=update)


def _warn_of_moved(known: Mapping[str, str], inputs: tuple[ShardInput, ...]) -> None:
    """A shard is known by its name; another file of that name may be meant as a new one."""
    moved = [s for s in inputs if known.get(s.name, storage.redact(s.url)) != storage.redact(s.url)]
    if moved:
        _log.warning(
            "%d shards were at another place when this run was begun, such as %s (then %s); those"
            " already done are taken as the same",
            len(moved),
            storage.redact(moved[0].url),
            known[moved[0].name],
        )


def _drive(
    config: RunConfig,
    folder: RunFolder,
    inputs: tuple[ShardInput, ...],
    todo: dict[str, str],
    fingerprint: str,
    address: str | None,
    factory: WorkerFactory,
    console: Console,
    rules: Rules | None,
) -> tuple[Stop | None, bool]:
    """Why it ended before all shards did, and whether threads were left behind."""
    execution = config.execution
    schedule = Schedule(
        todo,
        rules
        or Rules(
            workers=execution.workers,
            max_attempts=execution.max_attempts,
            max_error_rate=execution.max_error_rate,
            stall_timeout_s=execution.stall_timeout_s,
        ),
    )
    events = EventLog(folder, time.monotonic())
    tally = Tally(
        "gpu" if execution.gpus_per_worker else "model",
        _WORK[config.pipeline],
    )
    before = len(inputs) - len(todo)
    lost_before = len(folder.quarantined_names().intersection(s.name for s in inputs))
    stop: Stop | None = None
    threads_left = False
    try:
        with open_pool(config, fingerprint, address, factory, len(todo)) as pool:
            try:
                events.add(
                    "run_started",
                    shards=len(inputs),
                    pending=len(todo),
                    engine=execution.engine,
                    workers=execution.workers,
                    fingerprint=fingerprint,
                )
                driver = Driver(folder, schedule, pool, events, tally)
                asked = driver.run(console, before - lost_before, lost_before)
                stop = schedule.stopped
                if stop is None and asked and schedule.counts.waiting:
                    stop = Stop(EXIT_FAILED, f"stopped by {asked}")
            finally:
                threads_left = not pool.close()
    except ClusterLostError as error:
        stop = Stop(EXIT_FAILED, str(error))
    except KeyboardInterrupt:
        stop = Stop(EXIT_FAILED, "stopped at once; shards in flight are begun again next time")
    except OSError as error:
        stop = Stop(EXIT_FAILED, f"the run folder cannot be written: {error}")
    events.add(
        "run_finished",
        counts=schedule.counts,
        exit_code=stop.exit_code if stop else EXIT_DONE,
        reason=stop.sentence if stop else "",
        images=tally.images,
        errors=tally.errors,
        edits=tally.edits,
    )
    try:
        events.flush()
    except OSError as error:
        stop = stop or Stop(EXIT_FAILED, f"the run folder cannot be written: {error}")
    return stop, threads_left


def _settled(folder: RunFolder, names: list[str], stop: Stop | None) -> Outcome:
    """Finalize if all shards have ended, and say how it stands."""
    committed, quarantined = folder.committed(), folder.quarantined_names()
    done = sum(name in committed for name in names)
    lost = sum(name in quarantined and name not in committed for name in names)
    where = storage.redact(folder.root)
    tail = f"{done} of {len(names)} shards done, {lost} quarantined, in {where}"
    if stop is None and done + lost < len(names):
        stop = Stop(EXIT_FAILED, "shards that were committed have gone from the run folder")
    if stop is not None:
        again = "; run the same command again to go on" if stop.exit_code == EXIT_FAILED else ""
        return Outcome(stop.exit_code, f"{stop.sentence} ({tail}{again})", len(names), done, lost)
    try:
        index = _final_index(folder, committed, quarantined) or finalize(folder)
    except (OSError, CommitDamageError) as error:
        text = f"the run cannot be finalized: {storage.redact(str(error))} ({tail})"
        return Outcome(EXIT_FAILED, text, len(names), done, lost)
    tail += filtered_sentence(index)
    if index["left_out"]:
        lacking = f"direction of {', '.join(index['left_out'])}"
        tail += f"; no {'regions' if LEARNED_REGIONS in index['left_out'] else lacking}:"
        tail += "".join(f"\n  {reason}" for reason in index["left_out"].values())
        if not index["totals"]["directions"]:
            return Outcome(
                EXIT_FAILED, f"nothing could be learned ({tail})", len(names), done, lost
            )
    if lost:
        hint = "see `deltah status`, and use --retry-quarantined to try them again"
        return Outcome(EXIT_QUARANTINED, f"{tail}; {hint}", len(names), done, lost)
    return Outcome(EXIT_DONE, tail, len(names), done, lost)


def filtered_sentence(index: RunIndex) -> str:
    """How many edits break a rule of evaluate.filters, and which; "" where there are no rules to
    break.
    """
    edits, marked, dropped = (index["totals"][key] for key in ("edits", "marked", "dropped"))
    said = ""
    if marked:
        said += f"; {marked:,} of {edits:,} edits marked ({_counts(index['marked'])})"
    if dropped:
        said += f"; {dropped:,} of {edits + dropped:,} edits dropped ({_counts(index['dropped'])})"
    return said


def _counts(by_rule: Mapping[str, int]) -> str:
    ordered = sorted(by_rule.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} not {rule}" for rule, count in ordered)


def _final_index(
    folder: RunFolder, committed: frozenset[str], quarantined: frozenset[str]
) -> RunIndex | None:
    """The index, if it speaks of just these shards."""
    try:
        index = read_index(folder)
    except ValueError:  # of another release
        return None
    if (
        index is None
        or {entry["shard"] for entry in index["shards"]} != committed
        or set(index["quarantined"]) != quarantined
    ):
        return None
    return index
