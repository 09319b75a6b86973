"""The evaluate stage of a run, with the models that it asks for."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.engine import Engine
from tasks.evaluate import Evaluator


def build_evaluator(config: RunConfig, engine: Engine) -> Evaluator:
    """Measures on the model's device, in batches as large as those of the edits."""
    return Evaluator(device=engine.denoiser.device, batch_size=config.edit.batch_size)
