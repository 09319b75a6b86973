"""The learned editors of a run, given to every image beside what discovery finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from lib.direction import Direction
from lib.editors.learned_editor import LearnedEditor
from lib.records import Discovered, Failure, Segmented


class EditorProvider:
    """Read once from a library and the same for all images; `discover` is the stage before."""

    def __init__(
        self,
        editors: tuple[Direction | LearnedEditor, ...],
        discover: Callable[[Iterable[Segmented], Callable[[Failure], None]], Iterator[Discovered]],
    ) -> None:
        self._editors = editors
        self._discover = discover

    def __call__(
        self, items: Iterable[Segmented], reject: Callable[[Failure], None]
    ) -> Iterator[Discovered]:
        """Rejects what `discover` rejects."""
        for discovered in self._discover(items, reject):
            yield replace(discovered, editors=self._editors)
