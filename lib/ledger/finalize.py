"""The last step of a run: manifest, index and dataset card from the commits, and the leftovers
swept.

All of it can be made again at any time and comes out the same; a run that is not complete may be
finalized too, and again later.
"""

from __future__ import annotations

from collections import Counter

from lib.files import parquet, row_kinds, schemas, storage
from lib.ledger import quarantine
from lib.ledger.collection import collect
from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.ledger.dataset_card import render_card
from lib.ledger.manifest import ROWS_PER_FILE, ManifestWriter
from lib.ledger.merged_directions import write_merged
from lib.ledger.merged_regions import write_regions
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import INDEX_VERSION, RunIndex, ShardEntry, Totals, write_index

_MADE = ("edits-", "samples-", "errors-", "directions", "regions.safetensors")
"""Beginnings of the names of files that finalize makes."""


def finalize(folder: RunFolder, *, rows_per_file: int = ROWS_PER_FILE) -> RunIndex:
    """Rebuild manifest/, merged/, index.json and README.md, and delete files that no commit names;
    returns the index.

    Call it only when no worker of the run is alive. A shard that a late worker committed after it
    had been quarantined is done: its quarantine record is removed. A label from which no direction
    can be made is named in the index with the reason; the others are made.

    Raises:
        FileNotFoundError: the folder holds no run, or a file that a commit names is gone.
        CommitDamageError: a commit cannot be read or is of another run; nothing was deleted.

    """
    run = folder.read_run()
    fingerprint = str(run["fingerprint"])
    committed = folder.committed()
    metadata = {"deltah_schema": str(schemas.SCHEMA_VERSION), "fingerprint": fingerprint}
    kind = row_kinds.of_config(run["config"])
    manifest_rows = ManifestWriter(
        folder, kind.name, kind.schema.with_metadata(metadata), rows_per_file
    )
    errors = ManifestWriter(folder, "errors", schemas.ERRORS.with_metadata(metadata), rows_per_file)
    entries: list[ShardEntry] = []
    named: set[str] = set()
    statistics: list[str] = []
    regions: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for shard in sorted(committed):
        url = folder.commit_url(shard)
        record, rows = read_commit_rows(url)
        if (record.fingerprint, record.rows) != (fingerprint, kind.name):
            raise CommitDamageError(
                f"{storage.redact(url)} holds {record.rows} made with fingerprint"
                f" {record.fingerprint[:16]}, this run has {kind.name} and {fingerprint[:16]};"
                " remove it and run the same command again"
            )
        if not rows.schema.equals(kind.schema):
            raise CommitDamageError(
                f"{storage.redact(url)}: expected the columns {kind.schema.names} of this run, got"
                f" {rows.schema.names}; remove it and run the same command again"
            )
        manifest_rows.add(rows)
        if record.errors:
            error_url = folder.url("errors", record.errors)
            errors.add(parquet.decode(storage.read_bytes(error_url), error_url))
        if record.statistics:
            statistics.append(folder.url("statistics", record.statistics))
        if record.rows == "edits":
            regions.update(rows["region"].to_pylist())
        kinds.update(record.error_kinds)
        marked.update(record.marked)
        dropped.update(record.dropped)
        named.update(file.path for file in record.files)
        entries.append(_entry(record))
    for shard in sorted(folder.quarantined_names() & committed):
        quarantine.release(folder, shard)
    manifest = manifest_rows.finish(keep_empty=True) + errors.finish(keep_empty=False)
    learn = write_regions if run["config"].get("pipeline") == "region_model" else write_merged
    merged = learn(folder, statistics)
    quarantined = folder.quarantined()
    index = RunIndex(
        v=INDEX_VERSION,
        fingerprint=fingerprint,
        rows=kind.name,
        totals=_totals(
            entries,
            quarantined=len(quarantined),
            marked=marked.total(),
            dropped=dropped.total(),
            merged=sum(file["rows"] for file in merged.files),
        ),
        regions=dict(sorted(regions.items())),
        marked=dict(sorted(marked.items())),
        dropped=dict(sorted(dropped.items())),
        error_kinds=dict(sorted(kinds.items())),
        manifest=manifest,
        merged=merged.files,
        left_out=merged.left_out,
        quarantined=quarantined,
        shards=entries,
    )
    storage.replace(folder.card_url, render_card(run, index).encode())
    _remove_stale(folder, "manifest", {file["name"] for file in manifest})
    _remove_stale(folder, "merged", {file["name"] for file in merged.files})
    collect(folder, committed, named)
    write_index(folder, index)  # last: it tells the next driver that nothing is left to do here
    return index


def _entry(record: CommitRecord) -> ShardEntry:
    return ShardEntry(
        shard=record.shard,
        samples=record.n_ok,
        errors=record.n_err,
        edits=record.n_edits,
        found=record.n_directions,
        image=record.image,
        image_bytes=record.image_bytes,
        image_sha256=record.image_sha256,
        directions=record.directions,
        directions_bytes=record.directions_bytes,
        directions_sha256=record.directions_sha256,
        statistics=record.statistics,
        statistics_bytes=record.statistics_bytes,
        statistics_sha256=record.statistics_sha256,
        latents=record.latents,
        latents_bytes=record.latents_bytes,
        latents_sha256=record.latents_sha256,
    )


def _totals(
    entries: list[ShardEntry], *, quarantined: int, marked: int, dropped: int, merged: int
) -> Totals:
    return Totals(
        shards=len(entries),
        quarantined=quarantined,
        samples=sum(entry["samples"] for entry in entries),
        errors=sum(entry["errors"] for entry in entries),
        edits=sum(entry["edits"] for entry in entries),
        marked=marked,
        dropped=dropped,
        directions=merged + sum(entry["found"] for entry in entries),
        image_bytes=sum(entry["image_bytes"] for entry in entries),
        directions_bytes=sum(entry["directions_bytes"] for entry in entries),
        statistics_bytes=sum(entry["statistics_bytes"] for entry in entries),
        latents_bytes=sum(entry["latents_bytes"] for entry in entries),
    )


def _remove_stale(folder: RunFolder, kind: str, current: set[str]) -> None:
    """Files of an earlier finalize with more parts, or of other commits."""
    for name in storage.list_names(folder.url(kind)):
        if name not in current and name.startswith(_MADE):
            storage.delete(folder.url(kind, name))
