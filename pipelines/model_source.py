"""From a config's `model` to a checkpoint that can be run so; no torch, so that `plan` can ask."""

from __future__ import annotations

from lib.models.checkpoint import Checkpoint, open_checkpoint
from lib.models.conditioning import Conditioning, check_conditioning
from pipelines.config import Model


def open_model(model: Model) -> Checkpoint:
    """The checkpoint's files, fetched from the hub where the config says so.

    Raises:
        ModelProblem: they cannot be used, or not be had.
        ConfigProblem: a prompt or guidance that the model cannot take.
    """
    checkpoint = open_checkpoint(model.checkpoint, model.revision)
    check_conditioning(checkpoint, conditioning_of(model))
    return checkpoint


def conditioning_of(model: Model) -> Conditioning:
    """Prompt and guidance."""
    return Conditioning(model.prompt, model.negative_prompt, model.guidance_scale)
