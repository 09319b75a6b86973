"""The discover stage where nothing is to be found: directions read from a library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lib.direction import Direction
from lib.records import Discovered, Failure, Segmented


class LibraryDiscoverer:
    """Gives every image the same directions, read once from a library, matched to its regions by
    name.
    """

    def __init__(self, directions: tuple[Direction, ...]) -> None:
        self._directions = directions

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects nothing: whether the library fits the model was checked when it was read."""
        for segmented in items:
            yield Discovered(segmented, self._directions, own=False)
