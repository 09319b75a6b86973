"""What `deltah plan` finds out, and in which order. No torch without a probe, no ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from pydantic import TypeAdapter

from cluster.events import read_events
from cluster.views.plan_tables import print_plan
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.image_cost import ImageCost, cost_of_events
from pipelines.input_sizes import input_sizes
from pipelines.inputs import ShardInput, expand_inputs, missing_inputs, none_there
from pipelines.located import located
from pipelines.plan import counted_plan
from pipelines.plan_report import PlanReport, ShardStates, plan_report
from pipelines.probe import Probe
from pipelines.run_claim import run_claim

_WORKERS = (1, 8, 64, 512)
"""Beside those of the config, where a run has so many shards to do."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is asked beside the config."""

    probe: int = 0
    """Images to measure on; 0: none."""
    at: Collection[int] | None = None
    """Further numbers of workers; None: some that fit."""
    as_json: bool = False


def show_plan(config: RunConfig, options: PlanOptions) -> None:
    """Print what a run of `config` will do and what is already done.

    Raises:
        Problem: the config does not fit its inputs, its model or its output folder, or cannot be
            probed.
        KeyboardInterrupt: a probe was stopped.
    """
    config = located(config)
    inputs = expand_inputs(config.input.shards)
    folder = RunFolder(config.output.folder)
    claim = run_claim(config)
    begun = storage.exists(folder.run_url)
    if begun:
        folder.open_run(claim)  # there already, so this only compares
    names = [shard.name for shard in inputs]
    counts = folder.counts(names)
    missing = missing_inputs(inputs)
    if len(missing) == len(inputs) and counts.pending:
        raise none_there(inputs)
    sizes = input_sizes(config, inputs)
    planned = counted_plan(config, len(inputs), round(sum(sizes.images(names))))
    pending = folder.pending(names)
    report = plan_report(
        config,
        planned,
        inputs,
        sizes,
        ShardStates(
            counts.inputs, counts.committed, counts.quarantined, counts.pending, len(missing)
        ),
        str(claim["fingerprint"]),
        pending=pending,
        events_cost=_measured_before(folder) if begun and not options.probe else None,
        probe=_probed(config, claim, inputs, options.probe) if options.probe else None,
        others=[n for n in _WORKERS if n <= len(pending)] if options.at is None else options.at,
    )
    if options.as_json:
        typer.echo(TypeAdapter(PlanReport).dump_json(report, indent=1))
    else:
        print_plan(report, storage.redact(missing[0].url) if missing else "")


def _measured_before(folder: RunFolder) -> ImageCost | None:
    try:
        return cost_of_events(read_events(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigProblem(
            f"{storage.redact(folder.url('events'))}: expected the events of this release, got"
            f" something else ({error!r}); plan with --probe, which does not read them"
        ) from error


def _probed(
    config: RunConfig, claim: Mapping[str, Any], inputs: Sequence[ShardInput], images: int
) -> Probe:
    from cluster.views.plan_probe import shown_probe

    return shown_probe(config, claim, inputs, images)
