"""The directions that a library is built from: which there are, from their tables without vectors,
and the vectors of one group at a time, so that memory holds one region's and no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lib.direction import Direction
from lib.directions.direction_table import from_table
from lib.directions.library_files import library_files
from lib.directions.library_rows import RECORD, read_record
from lib.directions.library_store import Kind, kind_text
from lib.files import parquet, schemas, storage
from lib.ledger.commit_record import CommitDamageError, read_commit
from lib.ledger.run_folder import RunFolder
from lib.problems import ConfigProblem

Group = tuple[str, str, tuple[int, ...], tuple[int, ...], str]
"""Region, method, timesteps, window (empty: any) and label: only within it are directions one."""

_COLUMNS = (
    "id", "space", "h_layer", "model", "timesteps", "window", "method", "region", "shard", "index",
    "singular_value", "label", "support",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One directions file."""

    url: str
    sha256: str

    @property
    def entry(self) -> dict[str, str]:
        """For library.json: no folder, so that a moved run builds the same library."""
        return {"name": storage.basename(self.url), "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one direction lies, and its rank among those of its group."""

    order: tuple[Any, ...]
    file: int
    row: int


@dataclass(frozen=True, slots=True)
class Sources:
    """All directions of some runs, folders and libraries, each once."""

    files: tuple[SourceFile, ...]
    """Sorted by content."""
    fingerprints: tuple[str, ...]
    """Of those sources that are runs, sorted."""
    inputs: tuple[tuple[str, str], ...]
    """(shard, sha256 of its file) of every shard that those runs, or the runs that a source library
    was built from, have done; sorted.
    """
    images: tuple[tuple[str, int], ...]
    """(shard, index) of images in which directions were found and of whose shards no more is known;
    sorted.
    """
    kind: Kind
    places: dict[Group, list[_Place]]
    """Sorted by group; in each the strongest direction first."""

    @property
    def count(self) -> int:
        """Of directions."""
        return sum(map(len, self.places.values()))

    def load(self, group: Group) -> tuple[Tensor, list[Direction]]:
        """(unit rows (N, S*C*Y*X) float32, their directions), the strongest first, whatever order
        the sources were given in; the directions' vectors are views of the rows before scaling.
        """
        places = self.places[group]
        shape = self.kind[3]
        v_ND = np.empty((len(places), int(np.prod(shape))), np.float32)
        found: list[Direction | None] = [None] * len(places)
        wanted: dict[int, list[int]] = {}
        for position, place in enumerate(places):
            wanted.setdefault(place.file, []).append(position)
        for number, positions in sorted(wanted.items()):
            file = self.files[number]
            table = parquet.decode(storage.read_bytes(file.url), file.url)
            rows = table.take([places[position].row for position in positions])
            for position, direction in zip(positions, from_table(rows), strict=True):
                v_ND[position] = direction.vector_SCYX.numpy().ravel()
                if not np.isfinite(v_ND[position]).all() or not v_ND[position].any():
                    raise ConfigProblem(
                        f"{storage.redact(file.url)}: direction {direction.id} is zero or not"
                        " finite; leave this file out, or make it again"
                    )
                own_SCYX = torch.from_numpy(v_ND[position]).view(shape)
                found[position] = replace(direction, vector_SCYX=own_SCYX)
        unit_ND = torch.nn.functional.normalize(torch.from_numpy(v_ND), dim=1)
        return unit_ND, [direction for direction in found if direction is not None]


def read_sources(paths: Sequence[str]) -> Sources:
    """What is in `paths`: run folders, directions files, folders of them, other libraries.

    Raises:
        ConfigProblem: a path holds none, a file is damaged or of another release, or two files
            are of different models, h layers, spaces or vector shapes.
    """
    by_hash: dict[str, tuple[SourceFile, pa.Table]] = {}
    fingerprints = set()
    inputs: set[tuple[str, str]] = set()
    images: set[tuple[str, int]] = set()
    for path in paths:
        fingerprints |= _fingerprint(path)
        more_inputs, more_images = _studied(path)
        inputs |= more_inputs
        images |= more_images
        for url in library_files(path, "library build"):
            data = storage.read_bytes(url)
            file = SourceFile(url, hashlib.sha256(data).hexdigest())
            if file.sha256 not in by_hash:
                by_hash[file.sha256] = (file, _columns(data, url))
    files = tuple(by_hash[sha256][0] for sha256 in sorted(by_hash))
    kind: tuple[Kind, str] | None = None
    best: dict[tuple[Group, str], _Place] = {}
    for number, file in enumerate(files):
        images |= _images(by_hash[file.sha256][1])
        for row, (place_kind, group, identity, order) in enumerate(_rows(by_hash[file.sha256][1])):
            kind = kind or (place_kind, file.url)
            if place_kind != kind[0]:
                raise ConfigProblem(
                    "expected directions of one model, h layer, space and vector shape, but"
                    f" {storage.redact(kind[1])} holds some of {kind_text(kind[0])} and"
                    f" {storage.redact(file.url)} some of {kind_text(place_kind)}; build a library"
                    " of each"
                )
            place = _Place((*order, file.sha256, row), number, row)
            known = best.get((group, identity))
            if known is None or place.order < known.order:
                best[group, identity] = place
    if kind is None:
        named = ", ".join(storage.redact(path) for path in paths)
        raise ConfigProblem(f"expected directions in {named}, but their files have no rows")
    places: dict[Group, list[_Place]] = {}
    for (group, _), place in sorted(best.items(), key=lambda item: (item[0][0], item[1].order)):
        places.setdefault(group, []).append(place)
    known_shards = {shard for shard, _ in inputs}
    return Sources(
        files,
        tuple(sorted(fingerprints)),
        tuple(sorted(inputs)),
        tuple(sorted(image for image in images if image[0] not in known_shards)),
        kind[0],
        places,
    )


def _columns(data: bytes, url: str) -> pa.Table:
    try:
        table = parquet.decode(data, url)
        expected = schemas.directions_like(table.schema)
    except ValueError as error:
        raise ConfigProblem(f"{storage.redact(url)}: {error}") from error
    missing = sorted(set(expected.names) - set(table.schema.names))
    if missing:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a directions file of schema version"
            f" {schemas.SCHEMA_VERSION}, but it lacks the columns {', '.join(missing)}; it was"
            " written by another release: run its config again into a new folder"
        )
    shape = tuple(table.schema.field("vector").type.shape)
    return table.select(_COLUMNS).replace_schema_metadata({"shape": json.dumps(shape)})


def _rows(table: pa.Table) -> Iterator[tuple[Kind, Group, str, tuple[Any, ...]]]:
    shape = tuple(json.loads(table.schema.metadata[b"shape"]))
    for row in table.to_pylist():
        kind = (row["model"], row["h_layer"], row["space"], shape)
        group = (
            row["region"],
            row["method"],
            tuple(row["timesteps"]),
            tuple(row["window"] or ()),
            row["label"] or "",
        )
        image = (row["shard"] or "", -1 if row["index"] is None else row["index"])
        order = (-row["singular_value"], row["id"], -row["support"], *image)
        yield kind, group, row["id"], order


def _images(table: pa.Table) -> set[tuple[str, int]]:
    rows = table.select(["shard", "index"]).to_pylist()
    return {(row["shard"], row["index"]) for row in rows if row["shard"] is not None}


def _studied(path: str) -> tuple[set[tuple[str, str]], set[tuple[str, int]]]:
    """(inputs, images) as in `Sources`, of a run or a library; neither of any other source."""
    if path.endswith(".parquet"):
        return set(), set()
    names = storage.list_names(path)
    if "run.json" in names:
        folder = RunFolder(path)
        try:
            records = [read_commit(folder.commit_url(shard)) for shard in folder.committed()]
        except CommitDamageError as error:
            raise ConfigProblem(str(error)) from error
        return {(record.shard, record.input_sha256) for record in records}, set()
    if RECORD in names:
        built = read_record(path).get("built", {})
        inputs = {(entry["shard"], entry["sha256"]) for entry in built.get("inputs", ())}
        return inputs, {(entry["shard"], entry["index"]) for entry in built.get("images", ())}
    return set(), set()


def _fingerprint(path: str) -> set[str]:
    if path.endswith(".parquet"):
        return set()
    try:
        run = json.loads(storage.read_bytes(storage.join(path, "run.json")))
    except FileNotFoundError:
        return set()
    except ValueError as error:
        raise ConfigProblem(
            f"{storage.redact(path)}: expected run.json to be the record of a run: {error}"
        ) from error
    return {str(run["fingerprint"])} if "fingerprint" in run else set()
