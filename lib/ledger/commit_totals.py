"""What the commits of a run hold, added up from their footers, each of which is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor

from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import RunIndex

_READERS = 16
_SUMS = ("n_ok", "n_err", "n_edits", "n_directions", "image_bytes")


def read_commits(
    folder: RunFolder, shards: Iterable[str]
) -> Iterator[tuple[str, CommitRecord | CommitDamageError]]:
    """The commit footer of each shard, or what is wrong with it, in the given order; rows are not
    read.
    """

    def read(shard: str) -> tuple[str, CommitRecord | CommitDamageError]:
        try:
            return shard, read_commit(folder.commit_url(shard))
        except CommitDamageError as error:
            return shard, error
        except FileNotFoundError as error:  # it was deleted after it was listed
            return shard, CommitDamageError(str(error))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(read, shards)


class CommitTotals:
    """Sums over the commits read so far; commits never change, so new ones are enough."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.read: set[str] = set()
        self.sums: Counter[str] = Counter()
        """By the names of fields of CommitRecord."""
        self.error_kinds: Counter[str] = Counter()
        self.marked: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.damaged: dict[str, str] = {}
        """Shard -> what is wrong with its commit."""

    def unread(self, committed: Set[str]) -> int:
        """How many footers `catch_up` would read."""
        return len(committed - self.read) if self.read <= committed else len(committed)

    def catch_up(self, committed: Set[str]) -> None:
        """Read what is new in `committed`; all of it where a commit has gone."""
        if not self.read <= committed:
            self.clear()
        self.damaged.clear()
        for shard, record in read_commits(self._folder, sorted(committed - self.read)):
            if isinstance(record, CommitDamageError):
                self.damaged[shard] = str(record)
                continue
            self.read.add(shard)
            for name in _SUMS:
                self.sums[name] += getattr(record, name)
            self.error_kinds.update(record.error_kinds)
            self.marked.update(record.marked)
            self.dropped.update(record.dropped)

    def take(self, index: RunIndex) -> None:
        """What a finalized run's index.json has counted, without reading a commit."""
        self.clear()
        self.read = {entry["shard"] for entry in index["shards"]}
        self.error_kinds.update(index["error_kinds"])
        self.marked.update(index["marked"])
        self.dropped.update(index["dropped"])
        for entry in index["shards"]:
            self.sums["n_ok"] += entry["samples"]
            self.sums["n_err"] += entry["errors"]
            self.sums["n_edits"] += entry["edits"]
            self.sums["n_directions"] += entry["found"]
            self.sums["image_bytes"] += entry["image_bytes"]
