"""A config whose local paths are absolute: workers do not share the folder it was written in."""

from __future__ import annotations

from lib.models.checkpoint import EMBEDDED
from lib.models.hub import comes_from_hub
from pipelines.config import RunConfig
from pipelines.inputs import absolute
from pipelines.mask_models import located as located_segment


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
    if config.learned is not None and config.learned.path != EMBEDDED:
        path = absolute(config.learned.path)
        update["learned"] = config.learned.model_copy(update={"path": path})
    checkpoint, rectifier = config.model.checkpoint, config.model.rectifier
    of_model: dict[str, object] = {}
    if checkpoint != EMBEDDED and not comes_from_hub(checkpoint):
        of_model["checkpoint"] = absolute(checkpoint)
    if rectifier is not None:
        of_model["rectifier"] = absolute(rectifier)
    if of_model:
        update["model"] = config.model.model_copy(update=of_model)
    return config.model_copy(update=update)
