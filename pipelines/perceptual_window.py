"""The window of a run that Asyrp's rule finds: measured by the first worker, read by all."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from lib.editing.window_rule import cuts, distances
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.metrics.perceptual_distance import perceptual_distance
from pipelines.config import RunConfig
from pipelines.edit_config import WindowRule
from pipelines.engine import load_free_engine
from pipelines.held_out import first_samples

FILE = "window.json"


def resolved(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The config with the window and the boosting that the rule finds on the first images, and
    without a rule; the config itself if it has none. The first worker stores what it measures.

    Raises:
        ModelProblem: the checkpoint or LPIPS cannot be used.
        ConfigProblem: there is no image, or P_t never differs enough from the image.
    """
    rule = config.edit.window_rule
    if rule is None:
        return config
    url = folder.url(FILE)
    if not storage.exists(url):
        record = json.dumps(measured(config, rule), indent=1) + "\n"
        with suppress(FileExistsError):  # another worker measured the same
            storage.create(url, record.encode())
    found = json.loads(storage.read_bytes(url))
    high, low = config.edit.window
    window = (high, max(low, int(found["t_edit"])))
    boost_below = int(found["t_boost"]) if rule.boost else config.edit.boost_below
    update = {"window": window, "window_rule": None, "boost_below": boost_below}
    return config.model_copy(update={"edit": config.edit.model_copy(update=update)})


def measured(config: RunConfig, rule: WindowRule) -> dict[str, Any]:
    """t_edit, t_boost, and the distances they come from."""
    engine = load_free_engine(config)
    images = [
        sample.image_CHW
        for sample in first_samples(config, engine.denoiser.image_size, rule.images)
    ]
    distance = perceptual_distance(rule.measure, engine.denoiser.device)
    seen = distances(
        engine.denoiser,
        engine.grid,
        images,
        distance,
        last=engine.grid.last_node(config.edit.window[0]),
        batch_size=config.invert.batch_size,
    )
    thresholds = {"edit": rule.cosine * distance.edit, "boost": distance.boost}
    found = cuts(seen, **thresholds)
    return {
        "t_edit": found.t_edit,
        "t_boost": found.t_boost,
        "measure": distance.name,
        "thresholds": thresholds,
        "images": len(images),
        "distances": [
            {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(s).items()}
            for s in seen
        ],
    }
