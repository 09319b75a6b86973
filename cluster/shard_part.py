"""`--shard-of I/N`: this process takes every N-th shard, others the rest; no Ray is between them.

The parts share one run folder: commits are create-only files of one shard each. A part is cut from
the sorted list of all shards, not from what is pending, so that it is the same whenever it is begun
again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from lib.problems import ConfigProblem

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ShardPart:
    """Part `index` of `count`, counted from 0 as Slurm's array tasks are."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `I/N`; raises ConfigProblem unless 0 <= I < N."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise ConfigProblem(
                "--shard-of: expected I/N with I from 0 to N-1, such as 0/8 for the first of eight"
                f" parts, got {text!r}"
            )
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Those of `items`, sorted the same in every part, that are this part's."""
        return items[self.index :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
