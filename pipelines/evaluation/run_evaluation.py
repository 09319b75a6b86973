"""`deltah evaluate RUN`: the rows of a run added up to figures with intervals, and what models say
of its stored images joined to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from lib.files import row_kinds, storage
from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.metrics.disentanglement import Row, matrix
from lib.metrics.edit_rows import edit_rows
from lib.plots.lines import UNIT
from lib.problems import ConfigProblem
from pipelines.evaluation.direction_names import direction_names
from pipelines.evaluation.figures import FigureRow, figure_rows
from pipelines.evaluation.joined import Joined
from pipelines.evaluation.outputs import (
    evaluation_folder,
    write_errors,
    write_figures,
    write_matrix,
    write_spread,
)
from pipelines.evaluation.plots import PlotValues, read_spectra, share_of, write_plots
from pipelines.evaluation.run_sums import RunSums
from pipelines.learned_names import learned_names

_READERS = 4


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was written, for whoever shows it."""

    folder: str
    figures: tuple[FigureRow, ...]
    matrix: tuple[Row, ...]
    shards: int
    pending: int
    """Shards of the run that are neither committed nor given up."""
    notices: tuple[str, ...]
    failures: int = 0
    """Samples that are rows in errors.parquet."""


def evaluate_run(root: str, joined: Joined | None = None) -> Evaluation:
    """Write the files of `pipelines.evaluation.outputs` into the run's folder; nothing else of the
    run is touched, and an unfinished run may be evaluated. `joined` has what was measured of the
    pictures beyond the run's own columns.

    Raises:
        RunConflict: there is no run of this version at `root`.
        ConfigProblem: the run has no edits.
    """
    folder = RunFolder(root)
    config = run_of_edits(folder)
    learned = learned_names(folder)
    names, notice = direction_names(config, learned)
    notices = [notice] if notice else []
    committed = sorted(folder.committed())
    sums = RunSums(names.sources)
    drawn = PlotValues(share_of(len(committed)), frozenset(learned))
    records: list[CommitRecord] = []
    for found in _tables(folder, committed):
        if isinstance(found, str):
            notices.append(found)
            continue
        record, table = found
        table = table if joined is None else joined(record.shard, table)
        rows = edit_rows(record.shard, table, names)
        sums.add(rows)
        sums.dropped.update(record.dropped)
        drawn.add(rows)
        records.append(record)
    if not sums.edits:
        raise ConfigProblem(
            f"{storage.redact(root)}: expected a run with edits to evaluate, found none in its"
            f" {len(records)} committed shards; `deltah status {storage.redact(root)}` says how far"
            " it is"
        )
    effects = matrix(sums.effects)
    figures = [*figure_rows(sums, effects), *(() if joined is None else joined.figures())]
    target = evaluation_folder(root)
    write_figures(target, figures)
    write_matrix(target, effects, sums.dials)
    noised = config.get("edit", {}).get("method") == "sdedit"
    unit = "standard deviation of the noise" if noised else UNIT
    if learned:
        unit += "; learned: own unit"
    write_plots(target, drawn, read_spectra(folder, records), effects, unit=unit)
    write_spread(target, {} if joined is None else joined.record())
    failures = [] if joined is None else joined.failures
    write_errors(target, failures)
    return Evaluation(
        folder=target,
        figures=tuple(figures),
        matrix=tuple(effects),
        shards=len(records),
        pending=folder.counts().pending,
        notices=(*notices, *(() if joined is None else joined.notices)),
        failures=len(failures),
    )


def run_of_edits(folder: RunFolder) -> Mapping[str, Any]:
    """The config in run.json.

    Raises:
        RunConflict, ConfigProblem: as `evaluate_run`.
    """
    try:
        config: Mapping[str, Any] = folder.read_run()["config"]
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{storage.redact(folder.root)}: expected the output folder of a run, found no run.json"
            " in it"
        ) from error
    if row_kinds.of_config(config).name != "edits":
        raise ConfigProblem(
            f"{storage.redact(folder.root)}: expected a run with edits to evaluate, but this one"
            f" (pipeline: {config.get('pipeline')}) edits nothing"
        )
    return config


def _tables(
    folder: RunFolder, committed: Sequence[str]
) -> Iterator[tuple[CommitRecord, pa.Table] | str]:
    """The commits in their order, read a little ahead; a sentence for one that cannot be read."""

    def read(shard: str) -> tuple[CommitRecord, pa.Table] | str:
        try:
            return read_commit_rows(folder.commit_url(shard))
        except (CommitDamageError, OSError) as error:
            return storage.redact(str(error))

    shards = iter(committed)
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = [pool.submit(read, shard) for shard in islice(shards, _READERS)]
        while ahead:
            found = ahead.pop(0).result()
            ahead += [pool.submit(read, shard) for shard in islice(shards, 1)]
            yield found
