"""What the learned editors of a run are called: by their labels, as run.json has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lib.ledger.run_folder import RunConflict, RunFolder
from lib.problems import Problem

_DIGITS = 6


def learned_names(folder: RunFolder) -> dict[str, str]:
    """Id -> name; none where the run applies no learned editor, or has no run.json."""
    try:
        fields = folder.read_run()["fields"]
    except (OSError, KeyError, ValueError, RunConflict, Problem):
        return {}
    return names_of(fields.get("learned") or ())


def names_of(learned: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By label, with the first digits of the id where two have the same."""
    counts = Counter(str(each["label"]) for each in learned)
    return {
        str(each["id"]): str(each["label"])
        if counts[str(each["label"])] == 1
        else f"{each['label']} {str(each['id'])[:_DIGITS]}"
        for each in learned
    }
