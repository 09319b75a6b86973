"""The names of everything a run leaves, and the few questions a driver asks of them.

One folder is one run. `run.json` is written first and create-only; what is done is the listing of
`commit/`: the file name is the key, nothing is opened. No pyarrow here, so that `plan` and `status`
start fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.files import storage
from lib.ledger.run_record import RUN_VERSION, differences
from lib.ledger.snapshot import Counts, Snapshot
from lib.problems import Problem

_CLAIMED = (
    "README.md",
    "commit",
    "directions",
    "errors",
    "images",
    "index.json",
    "latents",
    "manifest",
    "merged",
    "quarantine",
    "statistics",
)

FILE_SUFFIXES = {
    "images": ".tar",
    "directions": ".parquet",
    "statistics": ".safetensors",
    "latents": ".safetensors",
    "errors": ".parquet",
}
"""Folder of the files that a commit may name -> how their names end."""


class RunConflict(Problem):
    """The folder cannot hold this run: it belongs to another one, or to something else."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's output folder: a local path or an fsspec URL."""

    root: str

    @property
    def run_url(self) -> str:
        """Config, fingerprint, versions; the first thing written."""
        return self.url("run.json")

    @property
    def inputs_url(self) -> str:
        """Every input shard this folder was ever given, with its URL."""
        return self.url("inputs.json")

    @property
    def index_url(self) -> str:
        """Totals and one entry per shard, made by finalize."""
        return self.url("index.json")

    @property
    def card_url(self) -> str:
        """The dataset card, made by finalize."""
        return self.url("README.md")

    @property
    def report_url(self) -> str:
        """The folder of the HTML report."""
        return self.url("report")

    def commit_url(self, shard: str) -> str:
        """The Parquet record that makes a shard's result exist."""
        return self.url("commit", f"{_checked(shard)}.parquet")

    def quarantine_url(self, shard: str) -> str:
        """Why a shard was given up."""
        return self.url("quarantine", f"{_checked(shard)}.json")

    def content_name(self, folder: str, shard: str, sha256: str) -> str:
        """Name of a file under a folder of FILE_SUFFIXES: the content's hash is in it, so two
        attempts never overwrite each other.
        """
        return f"{_checked(shard)}-{sha256[:16]}{FILE_SUFFIXES[folder]}"

    def url(self, *parts: str) -> str:
        """Address of a file or folder inside the run, for example `url("images", name)`."""
        return storage.join(self.root, *parts)

    def open_run(self, run: Mapping[str, Any]) -> None:
        """Claim the folder for `run` (from `run_record`), or find that it is this run's already.

        Raises RunConflict if the folder belongs to another fingerprint or stores other things
        beside it (the differing fields are named with both values), or holds files of something
        else under the names a run uses.
        """
        try:
            found = self.read_run()
        except FileNotFoundError:
            self._refuse_foreign_files()
            text = json.dumps(run, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            try:
                storage.create(self.run_url, text.encode())
                return
            except FileExistsError:  # another driver was faster; compare with what it wrote
                found = self.read_run()
        there, now = ({**each["fields"], "stores": each["stores"]} for each in (found, run))
        if found["fingerprint"] != run["fingerprint"] or found["stores"] != run["stores"]:
            lines = "\n".join(f"  {line}" for line in differences(there, now))
            raise RunConflict(
                f"{storage.redact(self.root)} holds a run made with other settings; expected the"
                f" same"
                f" fingerprint, but these fields differ (there / now):\n{lines}\n"
                "Choose another output folder, or set these fields back to continue that run."
            )

    def read_run(self) -> dict[str, Any]:
        """run.json; raises FileNotFoundError, or RunConflict if it is not a run of this version."""
        text = storage.read_bytes(self.run_url)
        try:
            run = json.loads(text)
            if not isinstance(run["fields"], dict) or not isinstance(run["fingerprint"], str):
                raise TypeError("fields or fingerprint have another type")
            version = run["v"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunConflict(
                f"{storage.redact(self.run_url)}: expected a run.json written by deltah, got"
                f" something else"
                f" ({error}); choose another output folder"
            ) from error
        if version != RUN_VERSION:
            raise RunConflict(
                f"{storage.redact(self.run_url)}: expected a folder of version {RUN_VERSION}, got"
                f" {version};"
                " use the release of deltah that wrote it, or another output folder"
            )
        return dict(run)

    def add_inputs(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Write inputs.json as the union of what is there and `inputs` (shard name -> URL); returns
        the union.

        URLs lose their credentials. The driver calls this at every start, after `open_run`.
        """
        known = self.inputs()
        union = known | {_checked(shard): storage.redact(url) for shard, url in inputs.items()}
        if union != known:
            text = json.dumps(union, indent=0, sort_keys=True, ensure_ascii=False) + "\n"
            storage.replace(self.inputs_url, text.encode())
        return union

    def inputs(self) -> dict[str, str]:
        """Every input shard this folder was ever given, with its URL; empty before the start."""
        try:
            return dict(json.loads(storage.read_bytes(self.inputs_url)))
        except FileNotFoundError:
            return {}

    def committed(self) -> frozenset[str]:
        """Names of the committed shards, by one listing."""
        return self._stems("commit", ".parquet")

    def quarantined_names(self) -> frozenset[str]:
        """Names of the quarantined shards, by one listing."""
        return self._stems("quarantine", ".json")

    def quarantined(self) -> dict[str, str]:
        """Shard -> reason, in the order of names; opens every quarantine record (they are few)."""
        return {
            shard: str(json.loads(storage.read_bytes(self.quarantine_url(shard)))["reason"])
            for shard in sorted(self.quarantined_names())
        }

    def snapshot(self, shards: Iterable[str] | None = None) -> Snapshot:
        """Where all shards are, by two listings; `shards` is the input, inputs.json if None.

        In this order a shard that moves on meanwhile is never missed: it is given up, then maybe
        committed, and an input before either.
        """
        given_up = self.quarantined_names()
        committed = self.committed()
        inputs = frozenset(self.inputs() if shards is None else shards)
        return Snapshot(inputs, committed, given_up)

    def counts(self, shards: Iterable[str] | None = None) -> Counts:
        """How far the run is: `snapshot` in numbers."""
        return self.snapshot(shards).counts

    def pending(self, shards: Sequence[str]) -> list[str]:
        """Those of `shards` that are neither committed nor quarantined, in their order; two
        listings.
        """
        pending = self.snapshot(shards).pending
        return [shard for shard in shards if shard in pending]

    def _stems(self, folder: str, suffix: str) -> frozenset[str]:
        return frozenset(
            name.removesuffix(suffix)
            for name in storage.list_names(self.url(folder))
            if name.endswith(suffix) and not name.startswith(storage.TEMP_PREFIX)
        )

    def _refuse_foreign_files(self) -> None:
        foreign = [name for name in _CLAIMED if storage.exists(self.url(name))]
        if foreign:
            raise RunConflict(
                f"{storage.redact(self.root)}: expected an empty folder or one with a run.json,"
                f" found"
                f" {', '.join(foreign)} without a run.json; choose another output folder"
            )


def _checked(shard: str) -> str:
    if not shard or shard.startswith(".") or "/" in shard or "\\" in shard or "\0" in shard:
        raise ValueError(
            f"a shard name becomes a file name: expected no slash and no leading dot, got {shard!r}"
        )
    return shard
