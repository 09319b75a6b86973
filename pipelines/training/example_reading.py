"""The images of a training, read from their shards once: what can be used, and what cannot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lib.files import storage
from lib.files.images import ImageError, decode
from lib.files.samples import ShardDamage, read_shard
from lib.fingerprint import fingerprint
from lib.problems import ConfigProblem
from lib.receipts import Failure
from lib.records import Sample
from pipelines.config import Input
from pipelines.inputs import ShardInput
from pipelines.reading import SampleReader

_AHEAD = 16
_SHARD_ERRORS = (ShardDamage, storage.ObjectTooLargeError, FileNotFoundError)


@dataclass(frozen=True, slots=True)
class Example:
    """One image, with its counterfactual where one is asked for."""

    sample: Sample
    target_CHW: Tensor | None
    """float32 in [-1, 1]."""


@dataclass(slots=True)
class Findings:
    """What reading came upon, beside the examples."""

    hashes: dict[str, str] = field(default_factory=dict)
    """Shard -> SHA-256 of its bytes, of shards that could be read."""
    failures: list[Failure] = field(default_factory=list)

    @property
    def data_sha256(self) -> str:
        """Of the names and contents of the shards."""
        return fingerprint(self.hashes)


def read_examples(
    options: Input,
    shards: Sequence[ShardInput],
    *,
    image_size: int,
    target_file: str | None,
    findings: Findings,
) -> Iterator[Example]:
    """All examples in the order of shards and samples; a sample or shard that cannot be used
    becomes a failure in `findings`.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, "decode") as pool:
        reader = SampleReader(
            options,
            image_size=image_size,
            claimed=frozenset(() if target_file is None else (target_file,)),
            fingerprint="training",  # training draws nothing by sample
            pool=pool,
            ahead=_AHEAD,
        )
        for shard in shards:
            limit = options.max_shard_bytes
            try:
                data = storage.read_bytes(shard.url, max_bytes=limit)
                raw = read_shard(data, shard.name, max_bytes=limit, salvage=options.salvage)
            except _SHARD_ERRORS as error:
                kind = getattr(error, "kind", type(error).__name__)
                findings.failures.append(
                    Failure(shard.name, None, None, "read", str(kind), storage.redact(str(error)))
                )
                continue
            findings.hashes[shard.name] = hashlib.sha256(data).hexdigest()
            findings.failures.extend(raw.failures)
            for sample in reader(raw.samples, findings.failures.append):
                found = _with_target(options, sample, target_file, image_size)
                if isinstance(found, Failure):
                    findings.failures.append(found)
                else:
                    yield found


def refuse_nothing(count: int, findings: Findings) -> None:
    """Raises ConfigProblem where no example can be used."""
    if count:
        return
    first = findings.failures[0] if findings.failures else None
    why = f"; the first: {first.shard}: {first.message}" if first is not None else ""
    raise ConfigProblem(
        f"input.shards: expected at least one image to train on, but none of"
        f" {len(findings.failures)} can be used{why}"
    )


def _with_target(
    options: Input, sample: Sample, target_file: str | None, size: int
) -> Example | Failure:
    if target_file is None:
        return Example(replace(sample, files={}), None)
    where = (sample.shard, sample.index, sample.key)
    data = sample.files.get(target_file)
    if data is None:
        return Failure(
            *where,
            "target",
            "no_target",
            f"expected the counterfactual image {sample.key}.{target_file} beside the image, found"
            f" {sorted(sample.files) or 'no side file'}",
        )
    try:
        pixels_HWC, _ = decode(
            data,
            size=size,
            fit=options.fit,
            min_side=options.min_side,
            max_pixels=options.max_pixels,
        )
    except ImageError as error:
        return Failure(*where, "target", error.kind, str(error))
    target_CHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return Example(replace(sample, files={}), target_CHW)
