"""Finished stages of a long benchmark in a folder, so that a run that was stopped goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def kept(folder: Path | None, stage: str, settings: object, make: Callable[[], Result]) -> Result:
    """What `make` gives, or gave in an earlier run with settings of the same `repr`; without a
    folder it is made every time.

    The files are pickles: use a folder of your own.
    """
    if folder is None:
        return make()
    key = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    path = folder / f"{stage}-{key}.pt"
    if path.exists():
        found: Result = torch.load(path, weights_only=False)
        return found
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(made, partial)
    partial.replace(path)
    return made
