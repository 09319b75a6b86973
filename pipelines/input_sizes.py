"""How large the shards of a run are, and how many images they hold: known or estimated, for its
plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lib.files import storage
from lib.files.listed_sizes import listed_sizes
from lib.files.samples import ShardDamage, read_shard
from lib.files.store_backends import local_path
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput

_MOST_LISTED = 10_000
"""Shards of a store for which its folders are listed: ten answers."""
_MOST_FOLDERS = 8
_ASKED = 32
"""Shards that are asked one by one where no listing helps."""
_OPENED = 16
"""Shards that are read until one can be read whole."""


@dataclass(frozen=True, slots=True)
class InputSizes:
    """Of the input shards."""

    known: Mapping[str, int]
    """Name -> bytes of the shards whose size is known; 0 where there is no file."""
    bytes_an_image: float
    """Of the first shard that can be read; 0 where none can."""

    @property
    def mean_bytes(self) -> float:
        """Of the known shards that are there."""
        there = [size for size in self.known.values() if size]
        return sum(there) / len(there) if there else 0.0

    def images(self, names: Iterable[str]) -> list[float]:
        """Estimated, of each of these shards."""
        mean, per_byte = self.mean_bytes, 1 / self.bytes_an_image if self.bytes_an_image else 0.0
        return [self.known.get(name, mean) * per_byte for name in names]


def input_sizes(config: RunConfig, inputs: Sequence[ShardInput]) -> InputSizes:
    """Look at `inputs`, and into the first of them that can be read; what cannot be read is left
    for the run to name.

    Raises:
        OSError: a store does not answer.
    """
    return InputSizes(_known(inputs), _bytes_an_image(config, inputs))


def _known(inputs: Sequence[ShardInput]) -> dict[str, int]:
    stored = [shard for shard in inputs if local_path(shard.url) is None]
    folders = {shard.url.rpartition("/")[0] for shard in stored}
    web = any(folder.startswith(("http://", "https://")) for folder in folders)
    if web or len(stored) > _MOST_LISTED or len(folders) > _MOST_FOLDERS or len(stored) <= _OPENED:
        asked = _evenly(stored, _ASKED)
        local = [shard for shard in inputs if local_path(shard.url) is not None]
        return _asked(asked) | _listed(local)
    try:
        return _listed(inputs)
    except PermissionError:  # a key may be allowed to read and not to list
        return _asked(_evenly(inputs, _ASKED))


def _listed(inputs: Sequence[ShardInput]) -> dict[str, int]:
    sizes = listed_sizes(shard.url for shard in inputs)
    return {shard.name: sizes.get(shard.url, 0) for shard in inputs}


def _asked(inputs: Sequence[ShardInput]) -> dict[str, int]:
    found = {}
    for shard in inputs:
        with suppress(FileNotFoundError):
            found[shard.name] = storage.info(shard.url).size
    return found


def _evenly(inputs: Sequence[ShardInput], most: int) -> list[ShardInput]:
    """At most so many, spread over all."""
    step = max(1.0, len(inputs) / most)
    return [inputs[int(number * step)] for number in range(min(most, len(inputs)))]


def _bytes_an_image(config: RunConfig, inputs: Sequence[ShardInput]) -> float:
    limit = config.input.max_shard_bytes
    for shard in inputs[:_OPENED]:
        try:
            data = storage.read_bytes(shard.url, max_bytes=limit)
            found = read_shard(data, shard.name, max_bytes=limit, salvage=True)
        except (FileNotFoundError, ShardDamage, storage.ObjectTooLargeError):
            continue
        return len(data) / found.n_in
    return 0.0
