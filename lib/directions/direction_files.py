"""Directions as files for other programs, with all their metadata: a .safetensors or a plain .pt.

The .safetensors has one float32 tensor (S, C, Y, X) an id and the metadata as JSON under
`deltah.directions` in its header. The .pt is {id: {"vector": tensor, "metadata": plain values}} and
opens with torch.load(weights_only=True). The same directions give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_type_hints

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lib.direction import Direction
from lib.files import storage
from lib.files.tensor_files import PICKLED, SAFETENSORS, read_pickled, read_safetensors
from lib.problems import ConfigProblem

EXPORT_HEADER = "deltah.directions"
"""Key of the metadata in a .safetensors header."""

_VERSION = 1
_VECTOR = "vector_SCYX"
_NAMES = tuple(f.name for f in fields(Direction) if f.name != _VECTOR)


def export_directions(directions: Sequence[Direction], url: str) -> None:
    """Write them to `url` (.safetensors, .pt or .pth), atomically in place of what is there.

    Raises:
        ConfigProblem: another ending, no directions, or two of one id.
    """
    ids = [d.id for d in directions]
    if not ids:
        raise ConfigProblem(f"{storage.redact(url)}: expected directions to export, got none")
    if len(set(ids)) < len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        raise ConfigProblem(f"expected every direction once, got these ids twice: {twice[:5]}")
    if url.endswith(SAFETENSORS):
        storage.replace(url, _safetensors_bytes(directions))
    elif url.endswith(PICKLED):
        storage.replace(url, _pickled_bytes(directions))
    else:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a name that ends in {SAFETENSORS} or"
            f" {' or '.join(PICKLED)}"
        )


def import_directions(url: str) -> tuple[Direction, ...]:
    """The directions of an export, in their order.

    Raises:
        ConfigProblem: no file, damaged, of another program or release, or a vector that is not
            finite, not of unit norm or does not fit its timesteps.
    """
    if url.endswith(SAFETENSORS):
        tensors, header = read_safetensors(url)
        if EXPORT_HEADER not in header:
            raise _foreign(url)
        rows = _header_rows(header[EXPORT_HEADER], url)
        entries = [(tensors.get(str(row.get("id"))), row) for row in rows]
    elif url.endswith(PICKLED):
        content = read_pickled(url)
        if not is_export(content):
            raise _foreign(url)
        entries = [(entry["vector"], entry["metadata"]) for entry in content.values()]
    else:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a {SAFETENSORS} or {' or '.join(PICKLED)} file"
        )
    return tuple(_direction(vector, row, url) for vector, row in entries)


def is_export(content: Any) -> bool:
    """Whether the content of a .pt file is one that `export_directions` wrote."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(v, dict) and {"vector", "metadata"} <= v.keys() for v in content.values()
        )
    )


def _safetensors_bytes(directions: Sequence[Direction]) -> bytes:
    # One key only: the order of several in the header differs from process to process.
    rows = json.dumps({"version": _VERSION, "directions": [_metadata(d) for d in directions]})
    vectors = {d.id: d.vector_SCYX.float().contiguous().clone() for d in directions}
    return safetensors.torch.save(vectors, metadata={EXPORT_HEADER: rows})


def _pickled_bytes(directions: Sequence[Direction]) -> bytes:
    buffer = io.BytesIO()
    content = {
        # Cloned, because a view would be saved with all of the tensor it looks into.
        d.id: {"vector": d.vector_SCYX.float().contiguous().clone(), "metadata": _metadata(d)}
        for d in directions
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def _metadata(direction: Direction) -> dict[str, Any]:
    row = {name: getattr(direction, name) for name in _NAMES}
    row["scores"] = None if direction.scores is None else asdict(direction.scores)
    row["parameters"] = dict(direction.parameters)
    # Through JSON, so that both formats hold the same plain types.
    plain: dict[str, Any] = json.loads(json.dumps(row))
    return plain


def _header_rows(text: str, url: str) -> list[Any]:
    try:
        content = json.loads(text)
        version, rows = content["version"], content["directions"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: the metadata of the header cannot be read: {error}"
        ) from error
    if version != _VERSION or not isinstance(rows, list):
        raise ConfigProblem(
            f"{storage.redact(url)}: expected directions of version {_VERSION}, got {version}"
        )
    return rows


def _direction(vector: Any, row: Any, url: str) -> Direction:
    if not isinstance(row, Mapping) or not isinstance(vector, Tensor):
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a vector and its metadata for every direction"
        )
    values = {str(k): v for k, v in row.items()}
    where = f"{storage.redact(url)}: direction {values.get('id')}"
    unknown = sorted(set(values) - set(_NAMES))
    if unknown:
        raise ConfigProblem(f"{where}: unknown metadata {unknown}; is it of a later release?")
    hints = get_type_hints(Direction)
    try:
        checked = {k: TypeAdapter(hints[k]).validate_python(v) for k, v in values.items()}
        direction = Direction(vector_SCYX=vector, **checked)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigProblem(f"{where}: {first['msg']}, got {first['input']!r:.80}") from error
    except TypeError as error:
        raise ConfigProblem(f"{where}: metadata is missing: {error}") from error
    _check_vector(direction, where)
    return direction


def _check_vector(direction: Direction, where: str) -> None:
    vector_SCYX = direction.vector_SCYX
    steps = len(direction.timesteps)
    if vector_SCYX.dtype != torch.float32 or vector_SCYX.ndim != 4 or len(vector_SCYX) != steps:
        raise ConfigProblem(
            f"{where}: expected a float32 vector ({steps}, C, Y, X), one for every timestep, got"
            f" {vector_SCYX.dtype} {tuple(vector_SCYX.shape)}"
        )
    norm_S = vector_SCYX.flatten(1).double().norm(dim=1)
    if not bool(((norm_S - 1).abs() < 1e-2).all()):  # NaN fails too
        raise ConfigProblem(
            f"{where}: expected finite steps of unit norm, got norms {norm_S.tolist()[:4]}"
        )


def _foreign(url: str) -> ConfigProblem:
    return ConfigProblem(
        f"{storage.redact(url)}: expected directions that deltah exported, found tensors without"
        " their metadata; import them as bare tensors, with space, shape and timesteps"
    )
