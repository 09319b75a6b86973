"""statistics/<shard>-<sha16>.safetensors: a shard's part of what is learned from all images.

A file holds everything that finalize needs: what is studied, and arrays by part (a timestep, a
label). No torch here, so that a commit can be checked in a light process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from lib.fingerprint import canonical_json

Arrays = Mapping[str, npt.NDArray[np.generic]]
_KEY = "statistics"


class StatisticsDamageError(ValueError):
    """A statistics file cannot be read, or belongs to another study."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is learned, the same in every shard of a run; plain values, JSON in the file."""

    method: str
    """pca or supervised."""
    parameters: Mapping[str, Any]
    """The section `discover` of the config, without what is said below."""
    timesteps: tuple[int, ...]
    """Of the grid, in the order of the config: the steps of h."""
    h_norms: tuple[float, ...]
    """The model's mean norm of h at each."""
    h_shape: tuple[int, int, int]
    """(C, Y, X) of one step."""
    h_layer: str
    model: str
    """SHA-256 of the weights."""
    vector_dtype: str
    """How the directions will be stored."""


def encode(study: Study, parts: Mapping[str, Arrays]) -> bytes:
    """The file's bytes; they depend on the content alone."""
    flat = {
        f"{part}/{name}": np.ascontiguousarray(array)
        for part, arrays in sorted(parts.items())
        for name, array in sorted(arrays.items())
    }
    # One key: safetensors writes several in no fixed order.
    head = {"study": asdict(study), "parts": list(parts)}
    return safetensors.numpy.save(flat, metadata={_KEY: canonical_json(head)})


def decode(data: bytes, where: str) -> tuple[Study, dict[str, dict[str, npt.NDArray[np.generic]]]]:
    """What `encode` was given; `where` is for the message.

    Raises:
        StatisticsDamageError: it is no whole file of this kind.
    """
    try:
        flat = safetensors.numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
        values = {field.name: head["study"][field.name] for field in fields(Study)}
        lists = {name: tuple(values[name]) for name in ("timesteps", "h_norms", "h_shape")}
        parts: dict[str, dict[str, npt.NDArray[np.generic]]] = {n: {} for n in head["parts"]}
        for name, array in flat.items():
            part, _, inner = name.partition("/")
            parts[part][inner] = array
        return Study(**(values | lists)), parts
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StatisticsDamageError(
            f"{where}: expected a whole statistics file: {error}; delete it and its commit, and"
            " run the same command again"
        ) from error
