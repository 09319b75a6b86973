"""A run's config with smaller batches, for a worker whose memory does not hold them.

One number says it all: no batch is larger than the limit. Samples keep their seeds, so what is
made differs by the rounding of kernels alone.
"""

from __future__ import annotations

from typing import Any

from pipelines.config import RunConfig
from pipelines.study_config import DatasetDiscovery


def largest_batch(config: RunConfig) -> int:
    """Of those that the config's pipeline goes through the network in."""
    return max(int(getattr(getattr(config, name), key)) for name, key in _batches(config))


def limited(config: RunConfig, limit: int) -> RunConfig:
    """The config with no batch above `limit`."""
    sections: dict[str, Any] = {}
    for name, key in _batches(config):
        section = getattr(config, name)
        sections[name] = section.model_copy(update={key: min(getattr(section, key), limit)})
    return config.model_copy(update=sections)


def _batches(config: RunConfig) -> list[tuple[str, str]]:
    """Section and key of every batch size that counts."""
    edits = ("edit", "batch_size")
    if config.pipeline == "edit_dataset" and config.edit.method == "sdedit":
        return [edits]
    found = [("invert", "batch_size")]
    if config.pipeline in ("store_latents", "region_model"):
        return found
    if config.pipeline == "edit_dataset":
        found.append(edits)
    if not isinstance(config.discover, DatasetDiscovery) and hasattr(config.discover, "chunk"):
        found.append(("discover", "chunk"))
    return found
