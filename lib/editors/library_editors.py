"""Where learned editors are found: in the folder of a training, in a library, in one file, or in
the repository. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from lib.editors.editor_record import EditorRecord, from_json
from lib.editors.editor_table import editor_url, read_editor_rows
from lib.files import storage
from lib.models.checkpoint import EMBEDDED
from lib.problems import ConfigProblem

EDITOR_HEADER = "deltah.editor"
"""Key of the record in a file's header."""
EDITOR_VERSION = 1
_MAX_HEADER_BYTES = 16_000_000
_SHIPPED = Path(__file__).parent.parent / "demo" / "model" / "editors"


def editors_root(path: str) -> str:
    """The library's folder that `path` means: `embedded` is the one of the embedded face model,
    unless there is a folder of that name.
    """
    return str(_SHIPPED) if path == EMBEDDED and not storage.exists(path) else path


def editor_file(path: str, kind: str, option: str) -> str:
    """The URL of the one editor of type `kind` at `path`: a file, or a folder that holds one.

    Raises:
        ConfigProblem: there is none, or there are several; `option` is what errors call it.
    """
    if path.endswith(".safetensors"):
        return path
    root = editors_root(path)
    found = [record for record in read_editor_rows(root) if record.type == kind]
    if len(found) != 1:
        names = ", ".join(f"{r.label} ({r.id})" for r in found) or "none"
        raise ConfigProblem(
            f"{option}: expected one learned editor of type {kind} in {storage.redact(path)}, found"
            f" {names}" + ("; name its file, editors/ID.safetensors" if found else "")
        )
    return editor_url(root, found[0].id)


def editor_sha256(path: str, kind: str, option: str) -> str:
    """Of the content of the one editor at `path`; raises as `editor_file`."""
    return hashlib.sha256(_bytes(editor_file(path, kind, option), option)).hexdigest()


def editor_head(path: str, kind: str, model: str, option: str) -> EditorRecord:
    """The record of the one editor at `path`, from its file alone.

    Raises:
        ConfigProblem: as `editor_file`; the file is damaged or of another program, or the editor is
            of another type or model.
    """
    url = editor_file(path, kind, option)
    where = storage.redact(url)
    data = _bytes(url, option)
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + min(size, _MAX_HEADER_BYTES)])
        texts = header.get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise ConfigProblem(f"{where}: expected a whole safetensors file") from error
    record = checked_head(texts, where)
    refuse_foreign_editor(record, kind, model, option)
    return record


def checked_head(texts: Mapping[str, str], where: str) -> EditorRecord:
    """The record in a header.

    Raises:
        ConfigProblem: it is not there, or of another release.
    """
    if EDITOR_HEADER not in texts:
        raise ConfigProblem(f"{where}: expected a learned editor that deltah wrote, found tensors")
    try:
        content = json.loads(texts[EDITOR_HEADER])
        version, values = content["version"], dict(content["editor"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigProblem(f"{where}: the header cannot be read: {error}") from error
    if version != EDITOR_VERSION:
        raise ConfigProblem(
            f"{where}: expected an editor of version {EDITOR_VERSION}, got {version}"
        )
    return from_json(values, where)


def refuse_foreign_editor(record: EditorRecord, kind: str, model: str, option: str) -> None:
    """Raises ConfigProblem where an editor is not of this type, or of another model's weights."""
    if record.type != kind:
        raise ConfigProblem(f"{option}: expected a {kind}, got {record.label}, a {record.type}")
    if record.model != model:
        raise ConfigProblem(
            f"{option}: {record.label} ({record.id}) is of model {record.model[:12]}, and this run"
            f" has model {model[:12]}"
        )


def _bytes(url: str, option: str) -> bytes:
    try:
        return storage.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigProblem(f"{option}: expected an editor at {storage.redact(url)}") from error
