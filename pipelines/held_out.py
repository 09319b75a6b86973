"""The model of a run and a few of its images, inverted and with their regions: what directions are
measured on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

from lib.files import storage
from lib.files.samples import ShardDamage, read_shard
from lib.models.kernels import settle
from lib.problems import ConfigProblem
from lib.receipts import Failure
from lib.records import Sample, Segmented
from lib.sampling.grid import edited_nodes
from pipelines.config import RunConfig
from pipelines.engine import Engine, load_free_engine
from pipelines.inputs import ShardInput, expand_inputs, missing_inputs, none_there
from pipelines.mask_providers import build_segmenter
from pipelines.reading import SampleReader
from pipelines.side_files import side_files
from pipelines.stages import build_editor, build_inverter
from tasks.edit import Editor
from tasks.invert import Inverter

_log = logging.getLogger(__name__)
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, ready to edit."""

    engine: Engine
    editor: Editor
    invert: Inverter


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images to measure on."""

    images: tuple[Segmented, ...]
    skipped: int
    """Images and shards that could not be used."""
    sha256: Mapping[str, str]
    """Shard -> of its file, for all that were read."""


def load_subject(config: RunConfig) -> Subject:
    """The model, grid, inversion and injection of a run's config.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: the window holds no timestep of the grid, or the device is not there.
    """
    settle(config.model.cpu_threads)
    engine = load_free_engine(config)
    nodes = edited_nodes(engine.grid.timesteps, config.edit.window)
    # What a direction does by itself is what is measured.
    unguarded = config.model_copy(update={"edit": config.edit.model_copy(update={"guard": None})})
    return Subject(
        engine,
        build_editor(unguarded, engine),
        build_inverter(config, engine, last=nodes[0], keep=frozenset()),
    )


def read_held_out(
    config: RunConfig, subject: Subject, regions: Collection[str], count: int, *, least: int
) -> HeldOut:
    """The first `count` images of the config's shards that can be decoded, inverted and segmented
    into `regions`; what is skipped is logged as a warning.

    Raises:
        ConfigProblem: there are fewer than `least`, or none of the shards is there.
    """
    inputs = expand_inputs(config.input.shards)
    if len(missing_inputs(inputs)) == len(inputs):
        raise none_there(inputs)
    failures: list[Failure] = []

    def reject(failure: Failure) -> None:
        _warn(failure)
        failures.append(failure)

    segment = build_segmenter(config, subject.engine, regions)
    found: list[Segmented] = []
    sha256: dict[str, str] = {}
    image_size = subject.engine.denoiser.image_size
    with _samples(config, inputs, image_size, sha256, reject) as shards:
        for samples in shards:
            segmented = segment(subject.invert(samples, reject), reject)
            found += islice(segmented, count - len(found))
            if len(found) == count:
                break
    if len(found) < least:
        raise ConfigProblem(
            f"input.shards: expected at least {least} held-out images that can be used, found"
            f" {len(found)} ({len(failures)} skipped)"
        )
    return HeldOut(tuple(found), len(failures), sha256)


def first_samples(config: RunConfig, image_size: int, count: int) -> list[Sample]:
    """The first `count` images of the config's shards, fewer where there are fewer; what cannot be
    read is logged as a warning.

    Raises:
        ConfigProblem: there is none.
    """
    inputs = expand_inputs(config.input.shards)
    with _samples(config, inputs, image_size, {}, _warn) as shards:
        found = list(islice(chain.from_iterable(shards), count))
    if not found:
        raise ConfigProblem("input.shards: expected at least one image that can be read")
    return found


def _warn(failure: Failure) -> None:
    place = failure.shard if failure.index is None else f"{failure.shard} #{failure.index}"
    _log.warning("%s: %s", place, failure.message)


@contextmanager
def _samples(
    config: RunConfig,
    inputs: Sequence[ShardInput],
    image_size: int,
    sha256: dict[str, str],
    reject: Callable[[Failure], None],
) -> Iterator[Iterator[Iterator[Sample]]]:
    with ThreadPoolExecutor(2, thread_name_prefix="codec") as pool:
        reader = SampleReader(
            config.input,
            image_size=image_size,
            claimed=side_files(config),
            fingerprint="",  # nothing here is random
            pool=pool,
            ahead=_AHEAD,
        )
        yield _shards(config, inputs, reader, sha256, reject)


def _shards(
    config: RunConfig,
    inputs: Sequence[ShardInput],
    reader: SampleReader,
    sha256: dict[str, str],
    reject: Callable[[Failure], None],
) -> Iterator[Iterator[Sample]]:
    """Of every shard that can be read, its samples; its hash enters `sha256`."""
    limit = config.input.max_shard_bytes
    for shard in inputs:
        try:
            data = storage.read_bytes(shard.url, max_bytes=limit)
            contents = read_shard(data, shard.name, max_bytes=limit, salvage=config.input.salvage)
        except (FileNotFoundError, storage.ObjectTooLargeError, ShardDamage) as error:
            reject(Failure(shard.name, None, None, "read", type(error).__name__, str(error)))
            continue
        sha256[shard.name] = hashlib.sha256(data).hexdigest()
        for failure in contents.failures:
            reject(failure)
        yield reader(contents.samples, reject)
