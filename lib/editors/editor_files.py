"""A learned editor as a file: a .safetensors of its tensors, its record as JSON in the header.

The same editor gives the same bytes; no moment is stored and nothing is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from lib.editors.editor_record import EditorRecord
from lib.editors.library_editors import (
    EDITOR_HEADER,
    EDITOR_VERSION,
    checked_head,
    editor_file,
    refuse_foreign_editor,
)
from lib.files import storage
from lib.files.tensor_files import read_safetensors
from lib.fingerprint import canonical_json
from lib.problems import ConfigProblem

Tensors = Mapping[str, Tensor]


def content_id(kind: str, model: str, head: Mapping[str, object], tensors: Tensors) -> str:
    """16 hex digits of a hash of what an editor does; `head` is what it is built from."""
    digest = hashlib.sha256(canonical_json([kind, model, dict(head)]).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_editor(record: EditorRecord, tensors: Tensors) -> bytes:
    """The file's bytes; they depend on the content alone."""
    head = canonical_json({"version": EDITOR_VERSION, "editor": record.to_json()})
    flat = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return safetensors.torch.save(flat, metadata={EDITOR_HEADER: head})


def read_editor(url: str) -> tuple[EditorRecord, dict[str, Tensor]]:
    """Record and tensors (CPU) of the file at `url`.

    Raises:
        ConfigProblem: no file, damaged, of another program or release, or not finite.
    """
    tensors, header = read_safetensors(url)
    where = storage.redact(url)
    record = checked_head(dict(header), where)
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ConfigProblem(f"{where}: expected finite values, found NaN or infinity in {name}")
    return record, tensors


def find_editor(
    path: str, kind: str, model: str, option: str
) -> tuple[EditorRecord, dict[str, Tensor]]:
    """The one editor of type `kind` at `path`: a file, or a folder that holds one.

    Raises:
        ConfigProblem: there is none or there are several, or it is of another type or model;
            `option` is what errors call it.
    """
    record, tensors = read_editor(editor_file(path, kind, option))
    refuse_foreign_editor(record, kind, model, option)
    return record, tensors
