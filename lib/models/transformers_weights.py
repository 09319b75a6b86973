"""Loading a transformers model from a local folder: safetensors only, no code of its own, float32,
frozen, and refused unless every weight is there and finite.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lib.models.transformers_folder import TransformersFolder
from lib.problems import ModelProblem


def load_weights(architecture: Any, found: TransformersFolder, what: str, **options: object) -> Any:
    """`architecture` (an auto or model class of transformers) with the folder's weights, in
    evaluation mode, on the CPU. `what` names it in errors; `options` go to its constructor.

    Raises:
        ModelProblem: another kind of model, truncated weights, weights that do not fit, are
            missing (transformers would fill them with noise), or are not finite.
    """
    from transformers.utils import logging

    # The bars go to stderr, line by line in a log file, and every worker would show one.
    logging.disable_progress_bar()
    try:
        model, report = architecture.from_pretrained(
            str(found.folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            variant="fp16" if ".fp16." in found.weights[0].name else None,
            output_loading_info=True,
            **options,
        )
    except (
        OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError,
    ) as error:  # fmt: skip
        raise ModelProblem(
            f"{found.folder}: expected {what} with whole weights that fit its config.json, got:"
            f" {brief(error)}"
        ) from error
    _check(model, report, found, what)
    return model.eval().requires_grad_(False)


def brief(error: BaseException) -> str:
    """The beginning of an error's text, on one line."""
    return " ".join(str(error).split()[:50])


def _check(model: nn.Module, report: Any, found: TransformersFolder, what: str) -> None:
    unfit = sorted(str(k) for name in ("missing_keys", "mismatched_keys") for k in report[name])
    if unfit:
        raise ModelProblem(
            f"{found.folder}: expected all weights of {what} ({type(model).__name__}), but"
            f" {len(unfit)} are missing or of another shape, the first: {unfit[0]}; is it another"
            " kind of model, or without its head?"
        )
    if not all(bool(torch.isfinite(p).all()) for p in model.state_dict().values()):
        raise ModelProblem(f"{found.folder}: expected finite weights, found NaN or infinity")
