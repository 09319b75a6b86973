"""One committed shard held against its own files: counts, indices, sizes, and with `deep` every
hash.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lib.files import parquet, row_kinds, schemas, storage
from lib.files.latent_files import LatentDamageError, decode
from lib.files.tar_reader import read_members
from lib.ledger.commit_record import CommitDamageError, CommitRecord, NamedFile, read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.ledger.shard_result import used_directions
from lib.metrics.rules import counted

_NAMED = 5


@dataclass(frozen=True, slots=True)
class ShardFinding:
    """What is wrong with one committed shard, and what it counts."""

    shard: str
    readable: bool
    n_ok: int
    n_err: int
    n_edits: int
    n_directions: int
    marked: Mapping[str, int]
    dropped: Mapping[str, int]
    """As the commit counts them, by rule."""
    files: tuple[str, ...]
    """The files it names, such as `images/<name>`."""
    problems: tuple[str, ...]


def check_shard(folder: RunFolder, shard: str, fingerprint: str, *, deep: bool) -> ShardFinding:
    """Everything that must hold of one commit, given the run's fingerprint."""
    try:
        record, rows = read_commit_rows(folder.commit_url(shard))
    except (CommitDamageError, FileNotFoundError) as error:
        return ShardFinding(shard, False, 0, 0, 0, 0, {}, {}, (), (f"shard {shard}: {error}",))
    problems = _footer_problems(record, rows, shard, fingerprint)
    problems += _sample_problems(folder, record, rows)
    for file in record.files:
        url = folder.url(file.folder, file.name)
        found = file_problems(url, file.path, file.size, file.sha256 if deep else None)
        problems += [f"shard {shard}: {problem}" for problem in found]
        if deep and not found:
            problems += _content_problems(url, file, record, rows)
    return ShardFinding(
        shard,
        True,
        record.n_ok,
        record.n_err,
        record.n_edits,
        record.n_directions,
        record.marked,
        record.dropped,
        tuple(file.path for file in record.files),
        tuple(problems),
    )


def file_problems(url: str, name: str, size: int, sha256: str | None) -> list[str]:
    """Whether a file is there with its size, and if `sha256` is given with its content."""
    try:
        found = storage.info(url).size
        if found != size:
            return [f"{name} should have {size} bytes, has {found}"]
        if sha256 is not None and hashlib.sha256(storage.read_bytes(url)).hexdigest() != sha256:
            return [f"{name} does not have the content whose sha256 is {sha256}"]
    except FileNotFoundError:
        return [f"{name} is missing"]
    return []


def _footer_problems(
    record: CommitRecord, rows: pa.Table, shard: str, fingerprint: str
) -> list[str]:
    problems = []
    if record.fingerprint != fingerprint:
        problems.append(
            f"shard {shard}: its commit was made with fingerprint {record.fingerprint[:16]}, the"
            f" run"
            f" has {fingerprint[:16]}"
        )
    others = sorted({record.shard, *rows["shard"].unique().to_pylist()} - {shard})
    if others:
        problems.append(f"shard {shard}: its commit speaks of other shards: {_some(others)}")
    if rows.num_rows != record.n_rows:
        problems.append(
            f"shard {shard}: its commit counts {record.n_rows} {record.rows} and has"
            f" {rows.num_rows} rows"
        )
    images = set(rows["image"].unique().to_pylist()) if record.rows == "edits" else set()
    if images - {record.image}:
        problems.append(
            f"shard {shard}: rows name {_some(sorted(images - {record.image}))} instead of"
            f" {record.image}"
        )
    found = rows["filtered"].drop_null().to_pylist() if record.rows == "edits" else []
    if Counter(found) != Counter(record.marked):
        problems.append(
            f"shard {shard}: its commit counts {counted(record.marked) or 'no'} marked edits,"
            f" its rows {counted(Counter(found)) or 'none'}"
        )
    if record.n_ok + record.n_err != record.n_in:
        problems.append(
            f"shard {shard}: {record.n_ok} samples ok and {record.n_err} in error do not make"
            f" {record.n_in}"
        )
    return problems


def _sample_problems(folder: RunFolder, record: CommitRecord, rows: pa.Table) -> list[str]:
    shard = record.shard
    order = row_kinds.BY_NAME[record.rows].order
    places = Counter(zip(*(rows[column].to_pylist() for column in order), strict=True))
    problems = [
        f"shard {shard}: {_place(place)} stands in the commit {count} times"
        for place, count in sorted(places.items())
        if count > 1
    ]
    ok = {place[0] for place in places}
    failed: list[int] = []
    if record.errors:
        url = folder.url("errors", record.errors)
        try:
            table = parquet.decode(storage.read_bytes(url), url)
        except FileNotFoundError:  # said by the check of files
            return problems
        except parquet.ParquetError as error:
            return [*problems, f"shard {shard}: {error}"]
        if not table.schema.equals(schemas.ERRORS):
            return [*problems, f"shard {shard}: errors/{record.errors} has other columns"]
        failed = [index for index in table["index"].to_pylist() if index is not None]
        if set(table["shard"].to_pylist()) != {shard}:
            problems.append(f"shard {shard}: errors/{record.errors} speaks of other shards")
    twice = sorted(index for index, count in Counter(failed).items() if count > 1)
    if twice:
        problems.append(f"shard {shard}: {_samples(twice)} more than once in errors")
    both = sorted(ok.intersection(failed))
    if both:
        problems.append(f"shard {shard}: {_samples(both)} in the commit and in errors")
    whole = set(range(record.n_in))
    neither = sorted(whole - ok - set(failed))
    if neither:
        problems.append(f"shard {shard}: {_samples(neither)} neither in the commit nor in errors")
    beyond = sorted((ok | set(failed)) - whole)
    if beyond:
        problems.append(f"shard {shard}: {_samples(beyond)} beyond its {record.n_in} samples")
    if (len(ok), len(failed)) != (record.n_ok, record.n_err):
        problems.append(
            f"shard {shard}: its commit counts {record.n_ok} samples ok and {record.n_err} in"
            f" error,"
            f" its rows {len(ok)} and {len(failed)}"
        )
    return problems


def _content_problems(url: str, file: NamedFile, record: CommitRecord, rows: pa.Table) -> list[str]:
    """What is in a file against the rows; its hash is right already."""
    if file.folder == "images":
        return _image_problems(url, record, rows)
    if file.folder == "directions" and record.rows == "edits":
        return _direction_problems(url, record, rows)
    if file.folder == "directions":
        return _count_problems(url, record, rows)
    if file.folder == "latents":
        return _latent_problems(url, record, rows)
    return []


def _image_problems(url: str, record: CommitRecord, rows: pa.Table) -> list[str]:
    contents = read_members(storage.read_bytes(url), max_bytes=record.image_bytes)
    if contents.damage is not None:
        return [f"shard {record.shard}: images/{record.image} is damaged: {contents.damage}"]
    hashes = {member.name: hashlib.sha256(member.data).hexdigest() for member in contents.members}
    return [
        f"shard {record.shard}: {name} in images/{record.image} "
        + ("is missing" if name not in hashes else f"does not have the sha256 {sha256}")
        for name, sha256 in zip(rows["member"].to_pylist(), rows["sha256"].to_pylist(), strict=True)
        if hashes.get(name) != sha256
    ]


def _direction_problems(url: str, record: CommitRecord, rows: pa.Table) -> list[str]:
    if not record.own_directions:
        return []
    try:
        known = set(parquet.decode(storage.read_bytes(url), url)["id"].to_pylist())
    except parquet.ParquetError as error:
        return [f"shard {record.shard}: {error}"]
    unknown = sorted(used_directions(rows) - known)
    if unknown:
        return [
            f"shard {record.shard}: rows use directions that directions/{record.directions} lacks:"
            f" {_some(unknown)}"
        ]
    return []


def _count_problems(url: str, record: CommitRecord, rows: pa.Table) -> list[str]:
    try:
        found = Counter(parquet.decode(storage.read_bytes(url), url)["index"].to_pylist())
    except parquet.ParquetError as error:
        return [f"shard {record.shard}: {error}"]
    counted = dict(zip(rows["index"].to_pylist(), rows["directions"].to_pylist(), strict=True))
    wrong = sorted(i for i in counted.keys() | found.keys() if counted.get(i, 0) != found[i])
    if wrong:
        return [
            f"shard {record.shard}: directions/{record.directions} has other numbers of directions"
            f" than the rows say of samples {_some([str(index) for index in wrong])}"
        ]
    return []


def _latent_problems(url: str, record: CommitRecord, rows: pa.Table) -> list[str]:
    try:
        stored = decode(storage.read_bytes(url), f"latents/{record.latents}")
    except LatentDamageError as error:
        return [f"shard {record.shard}: {error}"]
    lacking = sorted(set(rows["index"].to_pylist()) - set(stored.index_N.tolist()))
    if lacking:
        return [
            f"shard {record.shard}: latents/{record.latents} lacks samples"
            f" {_some([str(index) for index in lacking])}, which the commit has"
        ]
    return []


def _place(place: tuple[int, ...]) -> str:
    index, *edit = place
    return f"edit {edit[0]} of sample {index}" if edit else f"sample {index}"


def _samples(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"sample {indices[0]} stands"
    return f"samples {_some([str(index) for index in indices])} stand"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
