"""The losses of a training by term: of all its steps, or up to its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from lib.files import parquet, storage
from lib.problems import ConfigProblem

LOSSES = "losses.parquet"
TOTAL = "total"
"""Name of the weighted sum of the terms."""

Curves = Mapping[str, Sequence[float]]
"""Term -> its value at every step so far."""


def read_curves(root: str, fingerprint: str) -> Curves:
    """Of the training at `root`; empty before its first checkpoint.

    Raises:
        ConfigProblem: the file is damaged, or the checkpoint is that of another training.
    """
    url = storage.join(root, LOSSES)
    try:
        table = parquet.decode(storage.read_bytes(url), url)
    except FileNotFoundError:
        return _of_checkpoint(root, fingerprint)
    except parquet.ParquetError as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected the losses of a training: {error}"
        ) from error
    return {name: table[name].to_pylist() for name in table.column_names if name != "step"}


def first_and_last(values: Sequence[float]) -> tuple[float, float]:
    """The means over the first and the last tenth."""
    tenth = max(1, len(values) // 10)
    return fmean(values[:tenth]), fmean(values[-tenth:])


def _of_checkpoint(root: str, fingerprint: str) -> Curves:
    from pipelines.training.checkpoint import last_checkpoint  # torch, which no ended one needs

    found = last_checkpoint(root, fingerprint)
    if found is None:
        return {}
    history = found.history
    return dict(zip(history.names, zip(*history.rows, strict=True), strict=True))
