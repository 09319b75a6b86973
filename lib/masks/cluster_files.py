"""The files of automatic regions: statistics/<shard>-<sha16>.safetensors, a shard's part, and
merged/regions.safetensors, the model of a whole run, with all that is needed to apply it.

Reading a region model needs no torch, so that a config can be checked in a light process.
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

from lib.discovery.statistics_files import StatisticsDamageError
from lib.fingerprint import canonical_json

Arrays = Mapping[str, npt.NDArray[np.generic]]
_PART, _MODEL = "region_statistics", "region_model"


@dataclass(frozen=True, slots=True)
class RegionStudy:
    """What is looked at, the same in every shard of a run."""

    model: str
    """SHA-256 of the weights."""
    timesteps: tuple[int, ...]
    """Noise levels at which the image is looked at."""
    blocks: tuple[int, ...]
    """Up blocks, 0 the deepest."""
    sizes: tuple[int, ...]
    """Channels of every map: timestep by timestep block by block, then the colours."""
    weights: tuple[float, ...]
    """Of every map in a distance."""
    clusters: int
    coreset: int
    """Centres that stand for the points of a few images, and of a shard."""


@dataclass(frozen=True, slots=True)
class RegionModel:
    """Centres that every pixel is compared with; see `lib.masks.clusters.Clusters`."""

    study: RegionStudy
    images: int
    """It was learned from."""
    spread: float
    centres_KD: npt.NDArray[np.float32]
    scale_G: npt.NDArray[np.float32]
    share_K: npt.NDArray[np.float32]

    @property
    def clusters(self) -> int:
        """How many there are."""
        return len(self.centres_KD)


def encode_part(study: RegionStudy, arrays: Arrays) -> bytes:
    """A shard's statistics; the bytes depend on the content alone."""
    return _encoded(_PART, asdict(study), arrays)


def decode_part(data: bytes, where: str) -> tuple[RegionStudy, dict[str, npt.NDArray[np.generic]]]:
    """What `encode_part` was given; `where` is for the message.

    Raises:
        StatisticsDamageError: it is no whole file of this kind.
    """
    head, arrays = _decoded(_PART, data, where)
    return _study(head, where), arrays


def encode_model(model: RegionModel) -> bytes:
    """The bytes of merged/regions.safetensors."""
    head = {"study": asdict(model.study), "images": model.images, "spread": model.spread}
    arrays = {"centres": model.centres_KD, "scale": model.scale_G, "share": model.share_K}
    return _encoded(_MODEL, head, arrays)


def decode_model(data: bytes, where: str) -> RegionModel:
    """What `encode_model` was given; raises StatisticsDamageError."""
    head, arrays = _decoded(_MODEL, data, where)
    try:
        study = _study(head["study"], where)
        found = RegionModel(
            study,
            int(head["images"]),
            float(head["spread"]),
            *(np.asarray(arrays[name], np.float32) for name in ("centres", "scale", "share")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(where, error) from error
    shapes = found.centres_KD.shape, found.scale_G.shape, found.share_K.shape
    wanted = (study.clusters, sum(study.sizes)), (len(study.sizes),), (study.clusters,)
    if shapes != wanted:
        raise _damaged(where, f"expected arrays of the shapes {wanted}, got {shapes}")
    return found


def _encoded(kind: str, head: Any, arrays: Arrays) -> bytes:
    ordered = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    # One key: safetensors writes several in no fixed order.
    return safetensors.numpy.save(ordered, metadata={kind: canonical_json(head)})


def _decoded(kind: str, data: bytes, where: str) -> tuple[Any, dict[str, npt.NDArray[np.generic]]]:
    try:
        arrays = safetensors.numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        return json.loads(json.loads(data[8 : 8 + size])["__metadata__"][kind]), arrays
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(where, error) from error


def _study(head: Mapping[str, Any], where: str) -> RegionStudy:
    try:
        values: dict[str, Any] = {field.name: head[field.name] for field in fields(RegionStudy)}
        lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return RegionStudy(**(values | lists))
    except (KeyError, TypeError) as error:
        raise _damaged(where, error) from error


def _damaged(where: str, error: object) -> StatisticsDamageError:
    return StatisticsDamageError(
        f"{where}: expected a whole file of automatic regions: {error}; delete it and its commit,"
        " and run the same command again"
    )
