"""The end of the evaluate stage in a shard: edits that break a rule are counted, and dropped where
the run drops them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from lib.metrics.rules import counted
from lib.records import Evaluated, Failure


class EditFilter:
    """Of one shard: it counts what it has seen."""

    def __init__(self, *, drops: bool) -> None:
        self._drops = drops
        """Else all edits stay, marked in their rows."""
        self._dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> dict[str, int]:
        """Rule -> edits that were dropped because it is the first that they break."""
        return dict(sorted(self._dropped.items()))

    def __call__(
        self, items: Iterable[Evaluated], reject: Callable[[Failure], None]
    ) -> Iterator[Evaluated]:
        """Rejects as `filtered` a sample all of whose edits are dropped. The others keep their
        positions.
        """
        for evaluated in items:
            if not self._drops:
                yield evaluated
                continue
            broken = Counter(s.filtered for s in evaluated.scores if s.filtered is not None)
            self._dropped.update(broken)
            kept = tuple(score for score in evaluated.scores if score.filtered is None)
            if kept:
                yield replace(evaluated, scores=kept)
                continue
            sample = evaluated.sample
            drops = f"evaluate.filters drops all {broken.total()} edits"
            message = f"{drops}; broken are {counted(broken)}"
            where = (sample.shard, sample.index, sample.key)
            reject(Failure(*where, "evaluate", "filtered", message))
