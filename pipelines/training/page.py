"""The HTML page of a training: loss curves, what was trained and how it is used; opens offline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.editors.editor_record import EditorRecord
from lib.editors.editor_table import read_editor_rows
from lib.files import parquet, storage
from lib.plots.style import MAX_LINES, SCHEMES, Scheme, SchemeName, drawn, printable
from pipelines.heat_maps import heat_gradient
from pipelines.library_sheets import FRAME
from pipelines.number_texts import FILTERS
from pipelines.training.checkpoint import History, last_checkpoint
from pipelines.training.claim import read_training
from pipelines.training.progress import Progress, read_progress
from pipelines.training.result import LOSSES

_SMOOTHED = 20
"""The running mean of a curve is over a part in so many of the steps."""


def write_training_page(root: str) -> str:
    """Write report/index.html into the folder of a training, also of one that is not over; returns
    the page's path or URL.

    Raises:
        ConfigProblem: there is no training at `root`.
        OSError: the page could not be written.
    """
    training = read_training(root)
    history = _history(root, str(training["fingerprint"]))
    records = read_editor_rows(root)
    folder = storage.join(root, "report")
    for scheme in SCHEMES if history.rows else ():
        url = storage.join(folder, "plots", f"loss-{scheme}.svg")
        storage.replace(url, loss_curves(history, scheme))
    page = _rendered(
        name="/".join(part for part in storage.redact(root).split("/")[-2:] if part),
        root=storage.redact(root),
        training=training,
        config=training["config"],
        record=records[0] if records else None,
        use=_use(records[0], storage.redact(root)) if records else "",
        history=history,
        progress=read_progress(root) or Progress("not begun"),
        frame="rgb({} {} {})".format(*FRAME),
        gradient=heat_gradient(),
    )
    index = storage.join(folder, "index.html")
    storage.replace(index, page.encode())
    return index


def loss_curves(history: History, scheme: SchemeName) -> bytes:
    """A line a term, its running mean over its values, over the steps, as SVG."""

    def draw(axes: Any, colours: Scheme) -> None:
        steps = np.arange(1, len(history.rows) + 1)
        width = max(1, len(steps) // _SMOOTHED)
        columns = np.array(history.rows, np.float64).T
        shown = [(n, c) for n, c in zip(history.names, columns, strict=True) if n != "total"]
        for (name, values), colour in zip(shown[:MAX_LINES], colours.lines, strict=False):
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            at = steps[width - 1 :]
            axes.plot(at, smooth, color=colour, linewidth=1.6, label=printable(name))
        axes.set_xlabel("step")
        axes.set_ylabel("loss, not weighted")

    return drawn(draw, scheme)


def _history(root: str, fingerprint: str) -> History:
    """Of the whole training, or up to its last checkpoint."""
    url = storage.join(root, LOSSES)
    try:
        table: pa.Table = parquet.decode(storage.read_bytes(url), url)
    except FileNotFoundError:
        found = last_checkpoint(root, fingerprint)
        return History((), ()) if found is None else found.history
    names = tuple(name for name in table.column_names if name != "step")
    columns = [table[name].to_pylist() for name in names]
    return History(names, tuple(zip(*columns, strict=True)))


def _use(record: EditorRecord, root: str) -> str:
    if record.purpose == "reconstruction":
        return f"model: {{rectifier: {root}}}"
    entry = f"{{labels: [{record.label}], strengths: [0.5, 1.0]}}"
    return f"learned: {{path: {root}}}\nedit: {{plan: {{entries: [{entry}]}}}}"


def _rendered(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("training.html.j2").render(values)
