"""What is done with the learned editors of a library: others are added, and functions of h are
averaged into directions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from lib.direction import Direction
from lib.directions.asyrp import DirectionFunction, read_asyrp
from lib.directions.asyrp_baking import baked
from lib.directions.library_rows import LIBRARY_VERSION, RECORD, find_id, read_record
from lib.editors.editor_files import Tensors, content_id, encode_editor, read_editor
from lib.editors.editor_record import EDITING, FUNCTION, EditorRecord
from lib.editors.editor_table import editor_url, ids_of, read_editor_rows, write_editor_rows
from lib.editors.library_editors import editors_root
from lib.files import storage
from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.models.time_embedding import load_time_embedding
from lib.problems import ConfigProblem
from lib.sampling.step_weights import REFERENCE_STEPS
from pipelines.config import RunConfig
from pipelines.discovery_work import step_shape
from pipelines.library_changes import add_directions, checked_name
from pipelines.library_import import Origin, observed


def add_editors(root: str, sources: Sequence[str]) -> list[EditorRecord]:
    """Put the editors of trainings and other libraries into the library at `root`, which is begun
    where there is none; returns those that were new.

    Raises:
        ConfigProblem: a source has none, or they are of another model or h layer than the library.
    """
    added: list[EditorRecord] = []
    for source in sources:
        folder = editors_root(source)
        records = read_editor_rows(folder)
        if not records:
            raise ConfigProblem(
                f"{storage.redact(source)}: expected the folder of a finished training or a library"
                " with learned editors, found none in it"
            )
        for record in records:
            found, tensors = read_editor(editor_url(folder, record.id))
            if store_editor(root, found, tensors):
                added.append(found)
    return added


def store_editor(root: str, record: EditorRecord, tensors: Tensors) -> bool:
    """Put one editor into the library; returns whether it is new.

    Raises:
        ConfigProblem: it is of another model or h layer than the library.
    """
    _claim(root, record)
    known = read_editor_rows(root)
    if record.id in ids_of(known):
        return False
    storage.replace(editor_url(root, record.id), encode_editor(record, tensors))
    write_editor_rows(root, [*known, record])
    return True


def bake_editor(
    root: str, given: str, config: RunConfig, images: int, *, per_step: bool, checkpoint: str
) -> Direction:
    """Average the function whose id begins with `given` over the first `images` images of `config`
    (delta h mean of Kwon et al. 2023), or over the timesteps too (delta h global), and put the
    direction into the library. Its steps keep their lengths, so that strength 1 is the function's.

    Raises:
        ConfigProblem: there is no such function, or the direction does not fit those of the
            library.
    """
    records = {record.id: record for record in read_editor_rows(root)}
    record = records[find_id(list(records), given, root)]
    if record.type != FUNCTION:
        raise ConfigProblem(
            f"{record.label} ({record.id}) is a {record.type}; expected a {FUNCTION}, which depends"
            " on h, to average it over images"
        )
    _, tensors = read_editor(editor_url(root, record.id))
    function = DirectionFunction(
        source=record.label,
        block="0",
        weights={name: value.float() for name, value in tensors.items()},
        time=load_time_embedding(open_checkpoint(checkpoint)),
        ignores_time=bool(record.architecture["ignores_time"]),
    )
    origin = Origin(kind="asyrp", checkpoint=checkpoint, region=record.region)
    seen = observed(origin, record.label, config, images)
    made = baked(function, seen.h, seen.placement, per_step=per_step)
    norms: list[float] = list(made.parameters["norms"])
    lengths = tuple(n / seen.h_norms[t] for n, t in zip(norms, made.timesteps, strict=True))
    made = replace(made, lengths=lengths, unit_strength=record.unit_strength, parents=(record.id,))
    add_directions(root, [made], {})
    return made


def import_published_function(
    root: str, url: str, origin: Origin, trained_steps: int
) -> EditorRecord:
    """Put f_t of an Asyrp file into the library as it is. Strength 1 is its own edit: Asyrp adds
    delta h times (`trained_steps`, of its training / steps of the decoding).

    Raises:
        ConfigProblem: the file holds no network of Asyrp, there is no label or checkpoint, or the
            library is of another model.
        ModelProblem: the checkpoint cannot be used.
    """
    if origin.kind != "asyrp" or not origin.checkpoint:
        raise ConfigProblem("--function: expected --format asyrp and --model with it")
    label = checked_name(origin.label)
    checkpoint = open_checkpoint(origin.checkpoint)
    function = read_asyrp(
        url,
        load_time_embedding(checkpoint),
        block=origin.block,
        ignores_time=origin.ignores_time,
    )
    if not isinstance(function, DirectionFunction):
        raise ConfigProblem(
            f"--function: {storage.redact(url)} holds tensors and no network; import it without"
        )
    model, shape = weights_sha256(checkpoint), step_shape(checkpoint, "h")
    if function.channels != shape[0]:
        raise ConfigProblem(
            f"{storage.redact(url)}: it takes h of {function.channels} channels, and the model has"
            f" {shape[0]}"
        )
    tensors, architecture = dict(function.weights), {"ignores_time": function.ignores_time}
    window = origin.window or (checkpoint.num_train_timesteps - 1, 0)
    head = {"timesteps": [], "architecture": architecture}
    record = EditorRecord(
        id=content_id(FUNCTION, model, head, tensors),
        type=FUNCTION,
        label=label,
        region=origin.region,
        purpose=EDITING,
        method="asyrp",
        model=model,
        h_layer="after",
        timesteps=(window[0],),
        window=window,
        h_norms=(),
        lengths=(),
        unit_strength=trained_steps / REFERENCE_STEPS,
        shape=shape,
        architecture=architecture,
        parameters={"file": function.source, "block": function.block},
        data_sha256="",
        images=0,
        steps=0,
        losses={},
        fingerprint="",
    )
    store_editor(root, record, tensors)
    return record


def _claim(root: str, record: EditorRecord) -> None:
    """Begin the library where there is none; else check that the editor belongs to it."""
    names = storage.list_names(root)
    if RECORD not in names:
        if "run.json" in names or "training.json" in names:
            raise ConfigProblem(
                f"{storage.redact(root)} is the folder of a run or of an unfinished training;"
                " expected a folder for the library"
            )
        about = {"v": LIBRARY_VERSION, "model": record.model, "h_layer": record.h_layer}
        text = json.dumps(about, indent=1, sort_keys=True) + "\n"
        storage.replace(storage.join(root, RECORD), text.encode())
        return
    there = read_record(root)
    if (there["model"], there["h_layer"]) != (record.model, record.h_layer):
        raise ConfigProblem(
            f"{storage.redact(root)} is of model {there['model'][:12]}, layer {there['h_layer']},"
            f" and {record.label} ({record.id}) is of model {record.model[:12]}, layer"
            f" {record.h_layer}"
        )
