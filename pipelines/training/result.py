"""What a training leaves: the editor's file, the table of a library that holds it, the losses, what
could not be used; `library.json` is written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from torch import Tensor

from lib.directions.library_rows import LIBRARY_VERSION
from lib.directions.library_rows import RECORD as LIBRARY_RECORD
from lib.editors.editor_files import content_id, encode_editor
from lib.editors.editor_record import DIRECTION, EDITING, FUNCTION, RECONSTRUCTION, EditorRecord
from lib.editors.editor_table import editor_url, write_editor_rows
from lib.files import parquet, schemas, storage
from pipelines.training.checkpoint import History, clear_checkpoints
from pipelines.training.config import TrainConfig
from pipelines.training.curves import LOSSES, first_and_last
from pipelines.training.editor_building import Built
from pipelines.training.engine import TrainingEngine
from pipelines.training.example_store import Examples
from pipelines.training.objective_building import objective_content

ERRORS = "errors.parquet"


@dataclass(frozen=True, slots=True)
class Result:
    """A training that has come to its end."""

    config: TrainConfig
    fingerprint: str
    engine: TrainingEngine
    built: Built
    examples: Examples
    history: History


def write_result(result: Result) -> EditorRecord:
    """Write all files, the same for the same result; returns the editor's record."""
    root = result.config.output.folder
    dtype = result.config.output.dtype
    tensors = {
        name: value.half() if dtype == "float16" and value.is_floating_point() else value
        for name, value in result.built.tensors().items()
    }
    tensors = {name: value.cpu() for name, value in tensors.items()}
    record = editor_record(result, tensors)
    storage.replace(editor_url(root, record.id), encode_editor(record, tensors))
    storage.replace(storage.join(root, LOSSES), parquet.encode(_losses(result.history)))
    if result.examples.failures:
        rows = [{n: getattr(f, n) for n in schemas.ERRORS.names} for f in result.examples.failures]
        table = pa.Table.from_pylist(rows, schema=schemas.ERRORS)
        storage.replace(storage.join(root, ERRORS), parquet.encode(table))
    write_editor_rows(root, [record])
    about = {
        "v": LIBRARY_VERSION,
        "model": record.model,
        "h_layer": record.h_layer,
        "trained": {"fingerprint": record.fingerprint, "editor": record.id},
    }
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    storage.replace(storage.join(root, LIBRARY_RECORD), text.encode())
    clear_checkpoints(root)
    return record


def editor_record(result: Result, tensors: Mapping[str, Tensor]) -> EditorRecord:
    """Of the tensors as they are stored."""
    config, built, engine = result.config, result.built, result.engine
    timesteps = engine.timesteps
    lengths: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()
    if built.type == DIRECTION:
        delta_SCYX = tensors["delta_h"].float()
        shape = tuple(delta_SCYX.shape)
        norms = delta_SCYX.flatten(1).norm(dim=1).tolist()
        lengths = tuple(n / unit for n, unit in zip(norms, built.h_norms, strict=True))
    elif built.type == FUNCTION:
        shape = engine.denoiser.h_shape
    parameters = {
        "objective": objective_content(config.objective),
        "schedule": config.training.model_dump(mode="json", exclude={"latents", "seed"}),
        "learning_rate": config.editor.learning_rate,
        "seed": config.training.seed,
        "grid": list(engine.grid.timesteps),
    }
    head = {"timesteps": list(timesteps), "architecture": dict(built.architecture)}
    return EditorRecord(
        id=content_id(built.type, engine.model, head, tensors),
        type=built.type,
        label=config.editor.name,
        region=config.editor.region,
        purpose=RECONSTRUCTION if config.reconstructs else EDITING,
        method=built.method,
        model=engine.model,
        h_layer=config.model.h_layer,
        timesteps=timesteps,
        window=config.editor.window,
        h_norms=built.h_norms,
        lengths=lengths,
        unit_strength=config.editor.unit,
        shape=shape,
        architecture=built.architecture,
        parameters=parameters,
        data_sha256=result.examples.data_sha256,
        images=result.examples.count,
        steps=config.training.steps,
        losses=_ends(result.history),
        fingerprint=result.fingerprint,
        parents=built.parents,
    )


def _ends(history: History) -> dict[str, tuple[float, float]]:
    """Of every term the means over the first and the last tenth."""
    columns = zip(*history.rows, strict=True)
    return {
        name: first_and_last(column) for name, column in zip(history.names, columns, strict=True)
    }


def _losses(history: History) -> pa.Table:
    """One row a step, one column a term."""
    columns = dict(zip(history.names, zip(*history.rows, strict=True), strict=True))
    steps = pa.array(range(1, len(history.rows) + 1), pa.int32())
    return pa.table({"step": steps} | {n: pa.array(c, pa.float64()) for n, c in columns.items()})
