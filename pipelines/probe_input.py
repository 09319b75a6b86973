"""What a probe works on: the first images of a run's first readable shard, as shards of their own,
and the latents that another run has stored of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from lib.files import parquet, storage
from lib.files.samples import RawSample, ShardDamage, read_shard
from lib.files.tar_writer import write_tar
from lib.fingerprint import canonical_json
from lib.ledger.commit_record import read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.problems import ConfigProblem
from lib.receipts import ShardTask
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput

_OPENED = 16
"""Shards that are read until one can be read whole."""


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """The beginning of a shard, in memory."""

    shard: str
    sha256: str
    """Of the whole shard."""
    samples: tuple[RawSample, ...]
    """The first that can be read; others between them are not among them, and keep their index."""
    read_s: float
    """Of the whole shard: GET and untar."""

    def write(self, folder: RunFolder, count: int, name: str) -> ShardTask:
        """The first `count` samples as a shard called `name` in the folder."""
        members: list[tuple[str, bytes]] = []
        chosen = {sample.index: sample for sample in self.samples[:count]}
        for index in range(max(chosen) + 1):
            if index in chosen:
                files = chosen[index].files
                members += [(f"{chosen[index].key}.{end}", data) for end, data in files.items()]
            else:  # is rejected for having no image, which costs nothing, and holds the place
                members.append((f"unreadable-{index:06d}.txt", b""))
        url = folder.url("input", f"{name}.tar")
        storage.create(url, write_tar(members))
        return ShardTask(name, url, 1)


def probe_input(config: RunConfig, inputs: Sequence[ShardInput], count: int) -> ProbeInput:
    """At most `count` samples; fewer where the shard has fewer.

    Raises:
        ConfigProblem: none of the first shards can be read.
    """
    limit, first = config.input.max_shard_bytes, ""
    for shard in inputs[:_OPENED]:
        started = time.perf_counter()
        try:
            data = storage.read_bytes(shard.url, max_bytes=limit)
            contents = read_shard(data, shard.name, max_bytes=limit, salvage=config.input.salvage)
            if not contents.samples:
                raise ShardDamage("empty", f"shard {shard.name} has no sample that can be read")
        except (FileNotFoundError, ShardDamage, storage.ObjectTooLargeError) as error:
            first = first or storage.redact(str(error))
            continue
        read_s = time.perf_counter() - started
        sha256 = hashlib.sha256(data).hexdigest()
        return ProbeInput(shard.name, sha256, contents.samples[:count], read_s)
    raise ConfigProblem(
        f"--probe: expected a shard that can be read among the first {min(len(inputs), _OPENED)},"
        f" found none; the first: {first}"
    )


def lend_latents(source: RunFolder, target: RunFolder, found: ProbeInput, task: ShardTask) -> None:
    """Make what the run in `source` has stored of the whole shard stand in `target` as that of the
    shard of `task`, which a probe cut from it. That it is whole, and of this shard, has been
    checked.
    """
    record, rows = read_commit_rows(source.commit_url(found.shard))
    cut = hashlib.sha256(storage.read_bytes(task.url)).hexdigest()
    lent = replace(record, shard=task.shard, input_sha256=cut)
    footer = {"commit": canonical_json(asdict(lent))}
    if record.latents and not storage.exists(target.url("latents", record.latents)):
        data = storage.read_bytes(source.url("latents", record.latents))
        storage.create(target.url("latents", record.latents), data)
    storage.create(target.commit_url(task.shard), parquet.encode(rows, metadata=footer))
