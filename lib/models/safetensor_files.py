"""Weights on disk, without torch: which safetensors files a model's folder has, and whether they
are whole, so that `plan` refuses what a worker could not load.

A pickle is refused by name and never opened, because opening one can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lib.problems import ModelProblem

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_POINTER = b"version https://git-lfs"
_LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000


def weights_files(folder: Path, stem: str, convert: str) -> tuple[Path, ...]:
    """The safetensors files of the model in `folder`, sorted: `stem`.safetensors, or the files
    that its index names, or else the same in half precision (`stem`.fp16.safetensors).

    Every file is whole. `convert` is how one makes safetensors of pickled weights, for errors.

    Raises:
        ModelProblem: there are none, only pickles, a file that the index names is missing, or one
            is truncated.
    """
    for name in (stem, f"{stem}.fp16"):
        one = folder / f"{name}.safetensors"
        index = folder / f"{stem}.safetensors.index{name.removeprefix(stem)}.json"
        if one.is_file():
            files: tuple[Path, ...] = (one,)
        elif index.is_file():
            files = _indexed(index)
        else:
            continue
        for file in files:
            expect_whole(file)
        return files
    pickles = sorted({p.name for pattern in _PICKLES for p in folder.glob(pattern)})
    if pickles:
        raise ModelProblem(
            f"{folder}: expected {stem}.safetensors, found only {', '.join(pickles)}, which are"
            " never opened because a pickle can run code; convert them where you trust them:"
            f" {convert}"
        )
    raise ModelProblem(
        f"{folder}: expected {stem}.safetensors, but the folder holds no weights (from the hub"
        f" only safetensors are fetched; where there are only pickles, convert them: {convert})"
    )


def expect_whole(file: Path) -> None:
    """Compare the file's size with what its header declares; reads the header alone.

    Raises:
        ModelProblem: it is truncated, no safetensors file, or a Git LFS pointer to one.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(_POINTER))
        if start == _POINTER:
            raise ModelProblem(
                f"{file}: expected a whole safetensors file, got a Git LFS pointer; fetch the file"
                " itself with `git lfs pull`"
            )
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER):
            raise _not_whole(file, f"{size} bytes and a header of {length}")
        stream.seek(_LENGTH_BYTES)
        header = stream.read(length)
    try:
        ends = [e["data_offsets"][1] for k, e in json.loads(header).items() if k != "__metadata__"]
        expected = _LENGTH_BYTES + length + max(map(int, ends), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _not_whole(file, f"a header that cannot be read: {error}") from error
    if size != expected:
        raise _not_whole(file, f"{size} bytes where its header declares {expected}")


def float32_bytes(file: Path) -> int:
    """What the numbers of a whole safetensors file take in memory in float32; reads its header."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    return sum(4 * prod(entry["shape"]) for k, entry in header.items() if k != "__metadata__")


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; raises ModelProblem for anything else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelProblem(f"{path}: expected a JSON object, got: {error}") from error
    if not isinstance(content, dict):
        raise ModelProblem(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _indexed(index: Path) -> tuple[Path, ...]:
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise ModelProblem(f"{index}: expected a weight_map of tensors to files")
    names = sorted({str(name) for name in mapping.values()})
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not (index.parent / name).is_file()]
    if outside or missing:
        raise ModelProblem(
            f"{index}: expected the files it names in the same folder, not found:"
            f" {', '.join(outside or missing)}"
        )
    return tuple(index.parent / name for name in names)


def _not_whole(file: Path, found: str) -> ModelProblem:
    return ModelProblem(
        f"{file}: expected a whole safetensors file, got {found}; was it downloaded or copied to"
        " its end?"
    )
