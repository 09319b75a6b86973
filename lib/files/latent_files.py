"""latents/<shard>-<sha16>.safetensors: what inverting a shard's images found, for later runs.

A run that reads it decodes and differentiates from the same numbers, so that it leaves the bytes of
a run that inverts by itself. No torch here, so that a file can be checked in a light process.

Shape suffixes: N images of the shard, S states of the sampler, L latent channels, Y, X height and
width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from lib.fingerprint import canonical_json

Array = npt.NDArray[np.generic]
_KEY = "latents"
_VERSION = 1


class LatentDamageError(ValueError):
    """A latents file cannot be read, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class StoredLatents:
    """All that decoding and discovery need of the images of one shard."""

    timestep: int
    """Where the inversion stopped; decoding begins there."""
    index_N: npt.NDArray[np.int64]
    """Position of each image in the shard, ascending; failed ones are not among them."""
    image_sha256_N: Array
    """(N, 32) uint8: SHA-256 of the float32 image (C, H, W) that was inverted."""
    states_NSLYX: Array
    """What the sampler carries, x_t first: float32, float64 for two-state samplers, or float16."""
    noises: Mapping[int, Array]
    """Timestep -> z (N, L, Y, X) of the steps down from there that have noise."""
    x: Mapping[int, Array]
    """Timestep -> x_t (N, L, Y, X), float32 or float16, where discovery asked for it."""
    failed: tuple[tuple[int, str, str], ...]
    """Index, kind and message of every image that could not be inverted."""
    source: Mapping[str, Any]
    """Model, grid and sampler that made them, as plain values."""

    def __post_init__(self) -> None:
        """Every array has a row an image; raises ValueError."""
        count = len(self.index_N)
        arrays = (self.image_sha256_N, self.states_NSLYX, *self.noises.values(), *self.x.values())
        if any(len(array) != count for array in arrays) or not bool(
            (np.diff(self.index_N) > 0).all()
        ):
            raise ValueError(
                f"expected arrays of {count} rows, one an image, and ascending indices, got rows"
                f" {[len(array) for array in arrays]}"
            )

    def row(self, index: int) -> int | None:
        """The row of the image at position `index` of the shard, None if it has none."""
        row = int(np.searchsorted(self.index_N, index))
        return row if row < len(self.index_N) and self.index_N[row] == index else None


EMPTY = StoredLatents(
    timestep=0,
    index_N=np.zeros(0, np.int64),
    image_sha256_N=np.zeros((0, 32), np.uint8),
    states_NSLYX=np.zeros((0, 1, 0, 0, 0), np.float32),
    noises={},
    x={},
    failed=(),
    source={},
)
"""Of a shard in which no image could be read."""


def encode(stored: StoredLatents) -> bytes:
    """The file's bytes; they depend on the content alone."""
    arrays = {
        "index": stored.index_N,
        "image_sha256": stored.image_sha256_N,
        "states": stored.states_NSLYX,
        **{f"noise/{t}": array for t, array in stored.noises.items()},
        **{f"x/{t}": array for t, array in stored.x.items()},
    }
    flat = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    head = {
        "version": _VERSION,
        "timestep": stored.timestep,
        "failed": [list(each) for each in stored.failed],
        "source": dict(stored.source),
    }
    # One key: safetensors writes several in no fixed order.
    return safetensors.numpy.save(flat, metadata={_KEY: canonical_json(head)})


def decode(data: bytes, where: str) -> StoredLatents:
    """What `encode` was given; `where` is for the message.

    Raises:
        LatentDamageError: it is no whole file of this kind and version.
    """
    try:
        flat = safetensors.numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
        if head["version"] != _VERSION:
            raise ValueError(f"it is of version {head['version']}, not {_VERSION}")
        return StoredLatents(
            timestep=head["timestep"],
            index_N=flat["index"],
            image_sha256_N=flat["image_sha256"],
            states_NSLYX=flat["states"],
            noises=_by_timestep(flat, "noise/"),
            x=_by_timestep(flat, "x/"),
            failed=tuple((int(i), str(kind), str(text)) for i, kind, text in head["failed"]),
            source=head["source"],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LatentDamageError(f"{where}: expected a whole latents file: {error}") from error


def _by_timestep(flat: Mapping[str, Array], prefix: str) -> dict[int, Array]:
    found = {int(n.removeprefix(prefix)): a for n, a in flat.items() if n.startswith(prefix)}
    return dict(sorted(found.items(), reverse=True))
