"""The HTML report of a run: one page that opens offline, from commits alone, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files as resources
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.snapshot import Counts
from lib.problems import ConfigProblem
from pipelines.heat_maps import heat_gradient
from pipelines.html_page import rendered
from pipelines.report.cost import read_cost
from pipelines.report.directions import direction_groups, read_directions
from pipelines.report.distributions import charts
from pipelines.report.evaluation import read_evaluation
from pipelines.report.gallery import make_gallery
from pipelines.report.measured import add_measured
from pipelines.report.merged import read_merged
from pipelines.report.numbers import RunNumbers, medians_by_group, read_numbers
from pipelines.report.run_state import MAX_QUARANTINED, read_state
from pipelines.report.script_data import call
from pipelines.report.shard_rows import few_examples
from pipelines.report.tables import directions_table, edits_table

_SCRIPTS = (
    "deltah.js", "numbers.js", "chunks.js", "morph.js", "cards.js", "pictures.js", "axes.js",
    "charts.js", "query.js", "filters.js", "table.js", "explorer.js", "page.js",
)  # fmt: skip
_TABLE_MEASURES = (
    "in_change", "out_change", "roir", "roir_original", "in_ssim", "out_ssim", "psnr",
)  # fmt: skip
_MAX_GROUPS = 300
_MAX_EXAMPLES = 20
_FEW_NOTICES, _MAX_NOTICES = 5, 50
_WRITERS = 8
_PARTS = ("cards", "thumbnails", "data", "plots", "sheets")
"""Folders of the report; the last two are of earlier releases."""


def write_report(folder: str) -> str:
    """Write report/index.html and what it shows into the run folder; returns the page's path or
    URL.

    Raises:
        ConfigProblem: there is no run in `folder`.
        OSError: the report could not be written.

    """
    run_folder = RunFolder(folder)
    state = read_state(run_folder)
    numbers = read_numbers(run_folder, state.plain_config)
    if state.run is None and not numbers.committed and not state.quarantined:
        raise ConfigProblem(
            f"{storage.redact(folder)}: expected the output folder of a run, found neither a"
            " run.json nor a commit in it; give the folder that `output.folder` names"
        )
    unmeasured = add_measured(run_folder, numbers, state.plain_config)
    gallery = make_gallery(run_folder, state.config, numbers)
    directions, direction_files, lost = read_directions(run_folder, numbers.direction_files)
    merged, merged_left_out, unlearned = read_merged(run_folder)
    cost, unread = read_cost(run_folder)
    evaluation, unevaluated = read_evaluation(run_folder)
    notices = [*state.notices, *unlearned, *numbers.notices, *gallery.notices, *lost, *unread,
               *unmeasured, *unevaluated]  # fmt: skip
    files = dict(gallery.files)
    tables: dict[str, Any] = {}
    if numbers.edits.num_rows:
        tables["edits"], found = edits_table(numbers, gallery.cards, gallery.thumbnail_rows)
        files |= found
    head, found = directions_table(directions, numbers)
    if head:
        tables["directions"] = head
        files |= found
    drawn = charts(numbers)
    summary = {**gallery.summary, "charts": drawn, "tables": tables}
    files["data/summary.js"] = call("deltah.begin", summary)
    measures = [m for m in numbers.measures if m.name in _TABLE_MEASURES or m.is_score]
    groups = medians_by_group(numbers, [measure.name for measure in measures])
    page = rendered(
        "report/page.html.j2",
        name="/".join(part for part in storage.redact(folder).split("/")[-2:] if part),
        state=state,
        counts=state.counts or Counts(0, numbers.committed, len(state.quarantined)),
        numbers=numbers,
        measures=measures,
        groups=list(zip(numbers.keys, groups, strict=True))[:_MAX_GROUPS],
        groups_left_out=max(0, len(numbers.keys) - _MAX_GROUPS),
        gallery=gallery,
        charts=drawn,
        tables=tables,
        filtered=_filtered(numbers),
        directions=direction_groups(directions),
        direction_files=direction_files,
        merged=merged,
        merged_left_out=merged_left_out,
        evaluation=evaluation,
        errors=sorted(numbers.errors.items(), key=lambda item: (-item[1], item[0])),
        examples=few_examples(numbers.examples, _MAX_EXAMPLES),
        cost=cost,
        notices=notices[:_MAX_NOTICES],
        few_notices=_FEW_NOTICES,
        notices_left_out=max(0, len(notices) - _MAX_NOTICES),
        gradient=heat_gradient(),
        scripts=_SCRIPTS,
        max_quarantined=MAX_QUARANTINED,
    )
    return _write(run_folder, page, files)


def _filtered(numbers: RunNumbers) -> list[tuple[str, int, int]]:
    """(rule, edits that it marks, edits left out for it), the most frequent first."""
    rules = {*numbers.marked, *numbers.dropped}
    rows = [(rule, numbers.marked[rule], numbers.dropped[rule]) for rule in rules]
    return sorted(rows, key=lambda row: (-row[1] - row[2], row[0]))


def _write(folder: RunFolder, page: str, files: Mapping[str, bytes]) -> str:
    """What the page shows first, the page last; what an earlier report left and this one lacks is
    deleted.
    """
    root = folder.report_url
    scripts = resources("pipelines") / "templates" / "report"
    files = {name: (scripts / name).read_bytes() for name in _SCRIPTS} | dict(files)
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda item: storage.replace(storage.join(root, item[0]), item[1]),
                      files.items()))  # fmt: skip
    index = storage.join(root, "index.html")
    storage.replace(index, page.encode())
    for part in _PARTS:
        for name in storage.list_names(storage.join(root, part)):
            if f"{part}/{name}" not in files and name.endswith((".svg", ".webp", ".js")):
                storage.delete(storage.join(root, part, name))
    return index
