"""A run from its config to its exit code: claim the folder, skip what is done, drive, finalize.

Where nothing is left to do, neither torch nor ray is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console

from cluster.driver import Driver
from cluster.pools.opening import check_engine, observers, open_pool, shard_worker
from cluster.pools.protocol import ClusterLostError, WorkerFactory
from cluster.scheduling.orders import DUPLICATE_ABOVE, EXIT_FAILED, Rules, Stop
from cluster.scheduling.schedule import Schedule
from cluster.settlement import Outcome, settled
from cluster.shard_part import ShardPart
from cluster.views.work import show_end
from cluster.watching.monitor import Monitor
from lib.files import storage
from lib.ledger import quarantine
from lib.ledger.run_folder import RunFolder
from pipelines.config import Execution, RunConfig
from pipelines.inputs import ShardInput, expand_inputs, missing_inputs, none_there
from pipelines.located import located
from pipelines.memory_budget import stated_budget
from pipelines.run_claim import run_claim

_WORK = {
    "edit_dataset": "edit",
    "direction_library": "find",
    "store_latents": "invert",
    "region_model": "look",
}
"""Pipeline -> what is done with the shards, in a word."""

_log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    *,
    address: str | None = None,
    retry_quarantined: bool = False,
    part: ShardPart | None = None,
    factory: WorkerFactory = shard_worker,
    console: Console | None = None,
    rules: Rules | None = None,
) -> Outcome:
    """Bring every input shard of `config` to its end, or those of `part` while other processes do
    the rest; the manifest is made by whichever sees that all have ended.

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
    mine = part.of(inputs) if part else inputs
    own = [shard.name for shard in mine]
    if retry_quarantined:
        for name in folder.quarantined_names().intersection(own):
            quarantine.release(folder, name)
    pending = set(folder.pending(own))
    if not pending:
        return settled(folder, names, None, own if part else None)
    check_engine(config.execution)
    left = [shard for shard in mine if shard.name in pending]
    todo = {shard.name: shard.url for shard in left}
    console = console or Console(stderr=True)
    schedule = Schedule(todo, rules or _rules(config.execution))
    monitor = Monitor(
        folder,
        config.execution,
        _WORK[config.pipeline],
        lambda: schedule.counts,
        folder.snapshot(own),
        console,
    )
    budget = stated_budget(config, left)
    if budget:
        console.print(budget, markup=False, highlight=False, soft_wrap=True)
    fingerprint = str(record["fingerprint"])
    stop, threads_left = _drive(config, folder, schedule, fingerprint, address, factory, monitor)
    monitor.finalizing()
    outcome = settled(folder, names, stop, own if part else None)
    outcome = replace(outcome, threads_left=threads_left)
    monitor.ended(outcome.exit_code, outcome.sentence)
    show_end(console, folder, monitor.record())
    return outcome


def _rules(execution: Execution) -> Rules:
    return Rules(
        workers=execution.workers,
        max_attempts=execution.max_attempts,
        max_error_rate=execution.max_error_rate,
        stall_timeout_s=execution.stall_timeout_s,
        duplicate_above=DUPLICATE_ABOVE if execution.duplicate_stragglers else 0.0,
    )


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
    schedule: Schedule,
    fingerprint: str,
    address: str | None,
    factory: WorkerFactory,
    monitor: Monitor,
) -> tuple[Stop | None, bool]:
    """Why it ended before all shards did, and whether threads were left behind."""
    stop: Stop | None = None
    threads_left = False
    try:
        with open_pool(config, fingerprint, address, factory, schedule.counts.total) as pool:
            try:
                with monitor:
                    for observer in observers(config.execution, fingerprint, monitor.tally):
                        monitor.add(observer)
                    asked = Driver(
                        folder,
                        schedule,
                        pool,
                        monitor,
                        drain_timeout_s=config.execution.drain_timeout_s,
                    ).run()
                stop = schedule.stopped
                if stop is None and asked and schedule.counts.waiting:
                    stop = Stop(EXIT_FAILED, f"stopped by {asked}")
            finally:
                threads_left = not pool.close()
    except ClusterLostError as error:
        stop = Stop(EXIT_FAILED, str(error))
    except KeyboardInterrupt:
        stop = Stop(EXIT_FAILED, "stopped at once; shards in flight are begun again next time")
    except storage.StoreUnavailableError as error:
        stop = Stop(EXIT_FAILED, str(error))
    except OSError as error:
        stop = Stop(EXIT_FAILED, f"the run folder cannot be written: {error}")
    return stop, threads_left
