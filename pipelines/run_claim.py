"""What a run writes first: run.json, after everything that can be refused without a model."""

from __future__ import annotations

from typing import Any

from lib.run_record import run_record
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.stored_runs import check_stored_latents, what_is_stored


def run_claim(config: RunConfig) -> dict[str, Any]:
    """The record for `RunFolder.open_run`. Reads the weights once, without torch.

    Raises:
        ModelProblem: the checkpoint's files are not there.
        ConfigProblem: those of a library are not, or latents to be read do not fit.
    """
    fields = fingerprint_fields(config)
    check_stored_latents(config, fields)
    return run_record(fields, config.model_dump(mode="json"), what_is_stored(config))
