"""A worker's threads beside the model, and how much they hold: what bounds its memory."""

from __future__ import annotations

from pipelines.config import RunConfig

DECODERS, ENCODERS = 2, 3
"""Threads of either kind. Apart, because hundreds of images to encode would stand in front of the
first ones of the next shard to decode, for which the model waits.
"""
BATCHES_AHEAD = 3
"""Of every shard in flight, decoded in front of the model."""


def backlog_limit(config: RunConfig) -> int:
    """Samples that may wait to be encoded: as the model gives them, a batch at a time, without
    letting an encoder stand idle.
    """
    return config.invert.batch_size + ENCODERS
