"""The last step of a run: manifest, index and dataset card from the commits, and the leftovers
swept.

All of it can be made again at any time and comes out the same; a run that is not complete may be
finalized too, and again later.
"""

from __future__ import annotations

from collections import Counter

from lib import parquet, quarantine, schemas, storage
from lib.collection import collect
from lib.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.dataset_card import render_card
from lib.manifest import ROWS_PER_FILE, ManifestWriter
from lib.run_folder import RunFolder
from lib.run_index import INDEX_VERSION, RunIndex, ShardEntry, Totals, write_index


def finalize(folder: RunFolder, *, rows_per_file: int = ROWS_PER_FILE) -> RunIndex:
    """Rebuild manifest/, index.json and README.md, and delete files that no commit names; returns
    the index.

    Call it only when no worker of the run is alive. A shard that a late worker committed after it
    had been quarantined is done: its quarantine record is removed.

    Raises:
        FileNotFoundError: the folder holds no run, or a file that a commit names is gone.
        CommitDamageError: a commit cannot be read or is of another run; nothing was deleted.

    """
    run = folder.read_run()
    fingerprint = str(run["fingerprint"])
    committed = folder.committed()
    metadata = {"deltah_schema": str(schemas.SCHEMA_VERSION), "fingerprint": fingerprint}
    edits = ManifestWriter(folder, "edits", schemas.EDITS.with_metadata(metadata), rows_per_file)
    errors = ManifestWriter(folder, "errors", schemas.ERRORS.with_metadata(metadata), rows_per_file)
    entries: list[ShardEntry] = []
    named: set[str] = set()
    regions: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for shard in sorted(committed):
        url = folder.commit_url(shard)
        record, rows = read_commit_rows(url)
        if record.fingerprint != fingerprint:
            raise CommitDamageError(
                f"{storage.redact(url)} was made with fingerprint {record.fingerprint[:16]}, this"
                f" run has"
                f" {fingerprint[:16]}; remove it and run the same command again"
            )
        edits.add(rows)
        if record.errors:
            error_url = folder.url("errors", record.errors)
            errors.add(parquet.decode(storage.read_bytes(error_url), error_url))
        regions.update(rows["region"].to_pylist())
        kinds.update(record.error_kinds)
        named.update(_files(record))
        entries.append(_entry(record))
    for shard in sorted(folder.quarantined_names() & committed):
        quarantine.release(folder, shard)
    manifest = edits.finish(keep_empty=True) + errors.finish(keep_empty=False)
    quarantined = folder.quarantined()
    index = RunIndex(
        v=INDEX_VERSION,
        fingerprint=fingerprint,
        totals=_totals(entries, len(quarantined)),
        regions=dict(sorted(regions.items())),
        error_kinds=dict(sorted(kinds.items())),
        manifest=manifest,
        quarantined=quarantined,
        shards=entries,
    )
    storage.replace(folder.card_url, render_card(run, index).encode())
    _remove_stale(folder, {file["name"] for file in manifest})
    collect(folder, committed, named)
    write_index(folder, index)  # last: it tells the next driver that nothing is left to do here
    return index


def _files(record: CommitRecord) -> list[str]:
    pairs = (
        ("images", record.image),
        ("directions", record.directions),
        ("errors", record.errors),
    )
    return [f"{kind}/{name}" for kind, name in pairs if name]


def _entry(record: CommitRecord) -> ShardEntry:
    return ShardEntry(
        shard=record.shard,
        samples=record.n_ok,
        errors=record.n_err,
        edits=record.n_edits,
        image=record.image,
        image_bytes=record.image_bytes,
        image_sha256=record.image_sha256,
        directions=record.directions,
        directions_bytes=record.directions_bytes,
        directions_sha256=record.directions_sha256,
    )


def _totals(entries: list[ShardEntry], quarantined: int) -> Totals:
    return Totals(
        shards=len(entries),
        quarantined=quarantined,
        samples=sum(entry["samples"] for entry in entries),
        errors=sum(entry["errors"] for entry in entries),
        edits=sum(entry["edits"] for entry in entries),
        image_bytes=sum(entry["image_bytes"] for entry in entries),
        directions_bytes=sum(entry["directions_bytes"] for entry in entries),
    )


def _remove_stale(folder: RunFolder, current: set[str]) -> None:
    """Files of an earlier finalize with more parts."""
    for name in storage.list_names(folder.url("manifest")):
        if name not in current and name.startswith(("edits-", "errors-")):
            storage.delete(folder.url("manifest", name))
