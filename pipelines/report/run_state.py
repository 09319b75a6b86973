"""What the files of a run say of the run as a whole: config, shards by state, where things lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lib.files import storage
from lib.files.row_kinds import EDITS, of_config
from lib.ledger.run_folder import RunConflict, RunFolder
from lib.ledger.run_index import read_index
from lib.ledger.snapshot import Counts
from pipelines.config import RunConfig
from pipelines.config_text import config_yaml

MAX_QUARANTINED = 100
_EDITS = "Edited images and editing directions"
_SUBJECTS = {
    "edit_dataset": _EDITS,
    "direction_library": "Editing directions",
    "store_latents": "Stored latents",
    "region_model": "Regions learned from all images",
}
_MAX_FILES = 12


@dataclass(frozen=True, slots=True)
class RunState:
    """The run as a whole; what cannot be read is in the notices."""

    run: Mapping[str, Any] | None
    """run.json."""
    config: RunConfig | None
    """None where it is that of another release."""
    counts: Counts | None
    """None where inputs.json does not say which shards there are."""
    quarantined: Mapping[str, str]
    """Shard -> reason."""
    files: tuple[tuple[str, int, int], ...]
    """(path in the run's folder, rows, bytes) of the manifest's first files."""
    files_left_out: int
    region_sheet: str | None
    """Of learned regions, relative to the report; None until `deltah regions` has drawn it."""
    notices: tuple[str, ...]

    @property
    def edits_images(self) -> bool:
        """Whether the run's pipeline edits images at all."""
        config = None if self.run is None else self.run["config"]
        return not isinstance(config, dict) or of_config(config).name == EDITS.name

    @property
    def subject(self) -> str:
        """What the run makes, in words."""
        return _SUBJECTS.get(str(self.plain_config.get("pipeline")), _EDITS)

    @property
    def model(self) -> str | None:
        """The checkpoint that the config names."""
        config = None if self.run is None else self.run["config"]
        model = config.get("model") if isinstance(config, dict) else None
        return model.get("checkpoint") if isinstance(model, dict) else None

    @property
    def plain_config(self) -> Mapping[str, Any]:
        """The config as in run.json, whatever release wrote it; {} without any."""
        config = None if self.run is None else self.run["config"]
        return config if isinstance(config, dict) else {}

    @property
    def config_yaml(self) -> str | None:
        """The config as a person would write it."""
        return None if self.run is None else config_yaml(self.run["config"])


def read_state(folder: RunFolder) -> RunState:
    """Read run.json, inputs.json, the listings, quarantine records and the index."""
    run, notices = _read_run(folder)
    quarantined, unreadable = _quarantined(folder)
    files, left_out = _manifest(folder)
    return RunState(
        run=run,
        config=_config(run),
        counts=_counts(folder),
        quarantined=quarantined,
        files=files,
        files_left_out=left_out,
        region_sheet="../regions/regions.png" if _has_region_sheet(folder) else None,
        notices=(*notices, *unreadable),
    )


def _read_run(folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        return {"config": {}, "versions": {}, "git_commit": None} | folder.read_run(), []
    except FileNotFoundError:
        return None, ["run.json is missing, so the config is not known."]
    except (RunConflict, OSError) as error:
        return None, [str(error)]


def _config(run: Mapping[str, Any] | None) -> RunConfig | None:
    try:
        return None if run is None else RunConfig.model_validate(run["config"])
    except ValidationError:
        return None


def _counts(folder: RunFolder) -> Counts | None:
    try:
        counts = folder.counts()
    except (OSError, ValueError):
        return None
    return counts if counts.inputs else None


def _quarantined(folder: RunFolder) -> tuple[dict[str, str], list[str]]:
    """Shard -> reason, of the shards that no late worker committed after all; and what could not be
    read.
    """
    reasons: dict[str, str] = {}
    notices = []
    for shard in sorted(folder.quarantined_names() - folder.committed()):
        reasons[shard] = "its record cannot be read"
        if len(reasons) > MAX_QUARANTINED:
            continue
        try:
            reasons[shard] = str(
                json.loads(storage.read_bytes(folder.quarantine_url(shard)))["reason"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            notices.append(f"quarantine/{shard}.json cannot be read: {storage.redact(str(error))}")
    return reasons, notices


def _has_region_sheet(folder: RunFolder) -> bool:
    return "regions.png" in storage.list_names(folder.url("regions"))


def _manifest(folder: RunFolder) -> tuple[tuple[tuple[str, int, int], ...], int]:
    """The files that the index names; nothing before the first finalize, or of another release
    (the notices of what was learned say so).
    """
    try:
        index = read_index(folder)
    except (OSError, ValueError):
        return (), 0
    if index is None:
        return (), 0
    found = [
        (f"{part}/{file['name']}", file["rows"], file["bytes"])
        for part, files in (("manifest", index["manifest"]), ("merged", index["merged"]))
        for file in files
    ]
    return tuple(found[:_MAX_FILES]), max(0, len(found) - _MAX_FILES)
