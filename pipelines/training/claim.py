"""What a training writes first: training.json, its config and what its result depends on; a folder
of another training is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lib.editors.editor_record import RECTIFIER
from lib.editors.library_editors import editor_sha256
from lib.files import storage
from lib.ledger.run_folder import RunConflict
from lib.ledger.run_record import differences, run_record
from lib.models.checkpoint import weights_sha256
from lib.problems import ConfigProblem
from pipelines.inputs import ShardInput
from pipelines.model_source import open_model
from pipelines.training.config import TrainConfig
from pipelines.training.editor_config import RectifierEditor
from pipelines.training.objective_building import objective_content

RECORD = "training.json"


def training_fields(config: TrainConfig, shards: Sequence[ShardInput]) -> dict[str, Any]:
    """What the result depends on: all but where things lie and how the work is done.

    Raises:
        ModelProblem, ConfigProblem: a model or the editor to start from is not there.
    """
    fields = config.model_dump(mode="json", exclude={"output", "execution", "input"})
    fields["input"] = config.input.model_dump(mode="json", exclude={"shards"})
    fields["shards"] = sorted(shard.name for shard in shards)
    fields["model"]["checkpoint"] = weights_sha256(open_model(config.model))
    del fields["model"]["revision"]
    fields["objective"] = objective_content(config.objective)
    fields["training"]["latents"] = config.training.latents is not None
    fields["dtype"] = config.output.dtype
    if isinstance(config.editor, RectifierEditor) and config.editor.start is not None:
        fields["editor"]["start"] = editor_sha256(config.editor.start, RECTIFIER, "editor.start")
    del fields["training"]["checkpoint_every"]
    return fields


def claim(config: TrainConfig, shards: Sequence[ShardInput]) -> str:
    """Write training.json if nobody has, and return the fingerprint.

    Raises:
        RunConflict: the folder is of another training, or of something else.
        ModelProblem, ConfigProblem: as `training_fields`.
    """
    root = config.output.folder
    record = run_record(training_fields(config, shards), config.model_dump(mode="json"))
    url = storage.join(root, RECORD)
    names = set(storage.list_names(root))
    if RECORD not in names and names & {"run.json", "library.json", "index.json"}:
        raise RunConflict(
            f"output.folder: {storage.redact(root)} holds a run or a library; expected a folder of"
            " the training's own"
        )
    with suppress(FileExistsError):  # an earlier try, or another worker
        storage.create(url, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    there = read_training(root)
    if there["fingerprint"] != record["fingerprint"]:
        listed = "\n".join(f"  {line}" for line in differences(there["fields"], record["fields"]))
        raise RunConflict(
            f"output.folder: {storage.redact(root)} is of another training; there / now:\n{listed}"
            "\ngive another folder, or the config of that training to go on with it"
        )
    return str(record["fingerprint"])


def read_training(root: str) -> dict[str, Any]:
    """training.json.

    Raises:
        ConfigProblem: there is none, or it cannot be read.
    """
    url = storage.join(root, RECORD)
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(url))
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{storage.redact(root)}: expected the folder of a training, found no {RECORD} in it"
        ) from error
    except ValueError as error:
        raise ConfigProblem(f"{storage.redact(url)}: cannot be read: {error}") from error
    return record
