"""What a run writes first: run.json, after everything that can be refused without a model."""

from __future__ import annotations

from typing import Any

from lib.ledger.run_record import run_record
from pipelines.config import RunConfig
from pipelines.evaluation_models import refuse_unfit_models
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.model_source import open_model
from pipelines.stored_runs import check_stored_latents, what_is_stored


def run_claim(config: RunConfig) -> dict[str, Any]:
    """The record for `RunFolder.open_run`. Reads the weights once, without torch.

    Raises:
        ModelProblem: the files of the checkpoint or of another model are not there.
        ConfigProblem: those of a library are not, latents to be read do not fit, or a classifier
            lacks what is asked of it.
    """
    if config.pipeline == "edit_dataset":
        refuse_unfit_models(config.evaluate, open_model(config.model).image_size)
    fields = fingerprint_fields(config)
    check_stored_latents(config, fields)
    return run_record(fields, config.model_dump(mode="json"), what_is_stored(config))
