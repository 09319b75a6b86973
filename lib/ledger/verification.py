"""The proof that nothing was lost or doubled: every shard and every sample is in exactly one place.

Every commit is read and held against the files it names, the files against their sizes, and with
`deep` against their hashes, down to each image inside each tar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lib.files import storage
from lib.ledger.run_folder import FILE_SUFFIXES, RunFolder
from lib.ledger.run_index import RunIndex, not_learned, read_index
from lib.ledger.shard_check import ShardFinding, check_shard, file_problems
from lib.ledger.snapshot import Snapshot

_READERS = 4
_NAMED = 5
_AGAIN = "run `deltah finalize` again"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found."""

    inputs: int
    committed: int
    quarantined: int
    samples_ok: int
    samples_err: int
    edits: int
    directions: int
    """Found in single images, and learned from all of them."""
    pending: int
    """Inputs that have not ended."""
    unfinished: tuple[str, ...]
    """What going on with the run resolves, a sentence for each shard."""
    faults: tuple[str, ...]
    """What is wrong whether or not the run goes on."""
    notes: tuple[str, ...]
    """What is unusual but takes nothing from the result."""

    @property
    def problems(self) -> tuple[str, ...]:
        """All that keeps the run from being whole, in sentences."""
        return self.unfinished + self.faults

    @property
    def ok(self) -> bool:
        """Whether the run is whole."""
        return not self.problems


def verify(
    folder: RunFolder,
    shards: Sequence[str] | None = None,
    *,
    deep: bool = False,
    snapshot: Snapshot | None = None,
) -> Verification:
    """Check a run against its inputs: `shards`, or all of inputs.json if None; as it stood at
    `snapshot`, now if None.

    Raises:
        FileNotFoundError: the folder holds no run.json.
        RunConflict: its run.json is not one of this version.

    """
    fingerprint = str(folder.read_run()["fingerprint"])
    snapshot = snapshot or folder.snapshot(shards)
    committed = snapshot.committed
    unfinished = _unfinished(snapshot)
    faults = _strangers(snapshot) if shards is None else []
    checked = sorted(committed if shards is None else committed & snapshot.inputs)
    with ThreadPoolExecutor(_READERS) as pool:
        findings = list(
            pool.map(lambda shard: check_shard(folder, shard, fingerprint, deep=deep), checked)
        )
    for finding in findings:
        faults += finding.problems
    index = read_index(folder)
    if index is not None:
        lacking = _lacking(index, committed)
        (unfinished if snapshot.pending else faults).extend(lacking)
        faults += _index_problems(
            folder, index, findings, committed, whole=shards is None, deep=deep
        )
    notes = _unknown_files(folder, findings) if shards is None else []
    learned = 0
    if index is not None:
        learned = sum(file["rows"] for file in index["merged"])
        notes += not_learned(index)
    if index is None:
        notes.append("the run is not finalized: there is no index.json")
    counts = snapshot.counts
    return Verification(
        inputs=counts.inputs,
        committed=counts.committed,
        quarantined=counts.quarantined,
        samples_ok=sum(finding.n_ok for finding in findings),
        samples_err=sum(finding.n_err for finding in findings),
        edits=sum(finding.n_edits for finding in findings),
        directions=sum(finding.n_directions for finding in findings) + learned,
        pending=counts.pending,
        unfinished=tuple(unfinished),
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _unfinished(snapshot: Snapshot) -> list[str]:
    sentences = []
    for shard in sorted(snapshot.inputs):
        if shard in snapshot.pending:
            sentences.append(
                f"shard {shard} is neither committed nor quarantined; run the same command again"
            )
        elif shard in snapshot.committed and shard in snapshot.given_up:
            sentences.append(
                f"shard {shard} is both committed and quarantined; finalize resolves it"
            )
    return sentences


def _strangers(snapshot: Snapshot) -> list[str]:
    return [
        f"shard {shard} is {state} but is no input of this run"
        for state, shards in (
            ("committed", snapshot.committed),
            ("quarantined", snapshot.given_up),
        )
        for shard in sorted(shards - snapshot.inputs)
    ]


def _lacking(index: RunIndex, committed: frozenset[str]) -> list[str]:
    missing = sorted(committed - {entry["shard"] for entry in index["shards"]})
    if not missing:
        return []
    return [f"index.json lacks {len(missing)} committed shards ({_some(missing)}); {_AGAIN}"]


def _index_problems(
    folder: RunFolder,
    index: RunIndex,
    findings: Iterable[ShardFinding],
    committed: frozenset[str],
    *,
    whole: bool,
    deep: bool,
) -> list[str]:
    """What finalize made, against the commits it was made from."""
    problems = []
    indexed = {entry["shard"]: entry["edits"] for entry in index["shards"]}
    gone = sorted(indexed.keys() - committed) if whole else []
    if gone:
        problems.append(f"index.json lists shards without a commit ({_some(gone)}); {_AGAIN}")
    problems += [
        f"shard {f.shard}: index.json counts {indexed[f.shard]} edits, its commit {f.n_edits};"
        f" {_AGAIN}"
        for f in findings
        if f.readable and f.shard in indexed and indexed[f.shard] != f.n_edits
    ]
    if whole and indexed.keys() == committed:
        problems += [
            f"index.json counts other {what} edits than the commits; {_AGAIN}"
            for what, counted in (("marked", index["marked"]), ("dropped", index["dropped"]))
            if Counter(counted) != _by_rule(getattr(f, what) for f in findings)
        ]
    made = [("manifest", entry) for entry in index["manifest"]]
    made += [("merged", entry) for entry in index["merged"]]
    for kind, entry in made:
        problems += file_problems(
            folder.url(kind, entry["name"]),
            f"{kind}/{entry['name']}",
            entry["bytes"],
            entry["sha256"] if deep else None,
        )
    return problems


def _by_rule(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _unknown_files(folder: RunFolder, findings: Iterable[ShardFinding]) -> list[str]:
    """Files that no commit names, counted; gc sweeps those of committed shards."""
    named = {name for finding in findings for name in finding.files}
    notes = []
    for kind in FILE_SUFFIXES:
        unknown = [n for n in storage.list_names(folder.url(kind)) if f"{kind}/{n}" not in named]
        if unknown:
            notes.append(
                f"{kind}/ holds {len(unknown)} files that no commit names ({_some(unknown)});"
                " finalize removes those of committed shards"
            )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
