"""The HTML page of a training, over or not: loss curves, what was trained, how it is used and made
again; opens offline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.directions.library_rows import RECORD as LIBRARY_RECORD
from lib.editors.editor_record import RECONSTRUCTION, EditorRecord
from lib.editors.editor_table import editor_url, read_editor_rows
from lib.files import storage
from lib.plots.losses import loss_curve
from lib.plots.style import SCHEMES
from lib.region_names import WHOLE
from pipelines.config_text import config_yaml
from pipelines.html_page import rendered, write_page
from pipelines.library_sheets import FRAME
from pipelines.training.claim import read_training
from pipelines.training.curves import TOTAL, Curves, first_and_last, read_curves
from pipelines.training.objective_config import kind_names
from pipelines.training.progress import Progress, read_progress

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TermRow:
    """A term of the loss, for the page."""

    name: str
    weight: float | None
    """None of the sum, and of a loss that no objective names."""
    asked: Plain
    """What the config says of it beside kind and weight."""
    first: float
    last: float
    plot: str
    """Of its curve, without the scheme."""


def write_training_page(root: str) -> str:
    """Write report/index.html into the folder of a training, also of one that is not over; returns
    the page's path or URL.

    Raises:
        ConfigProblem: there is no training at `root`, or its files are damaged.
        OSError: the page could not be written.
    """
    training = read_training(root)
    config: Plain = training["config"]
    fingerprint = str(training["fingerprint"])
    record = _trained(root, fingerprint)
    curves = read_curves(root, fingerprint)
    terms = term_rows(curves, config["objective"])
    plots = {
        f"plots/{term.plot}-{scheme}.svg": loss_curve(
            np.asarray(curves[term.name], np.float64), scheme, measured=f"loss: {term.name}"
        )
        for term in terms
        for scheme in SCHEMES
    }
    steps = len(next(iter(curves.values()), ()))
    now = read_progress(root) or Progress("not begun")
    where = storage.redact(root)
    page = rendered(
        "training.html.j2",
        name="/".join(part for part in where.split("/")[-2:] if part),
        root=where,
        training=training,
        config=config,
        config_yaml=config_yaml(config),
        record=record,
        file=None if record is None else storage.redact(editor_url(root, record.id)),
        use=None if record is None else config_yaml(use_in_run(record, where)),
        needs_region=record is not None and record.region != WHOLE,
        reconstruction=RECONSTRUCTION,
        steps=steps,
        terms=terms,
        progress=now,
        left_s=_left_s(now, config["training"]["batch_size"]),
        frame="rgb({} {} {})".format(*FRAME),
    )
    return write_page(root, page, plots)


def term_rows(curves: Curves, objective: Sequence[Plain]) -> list[TermRow]:
    """The terms of a loss in their order, with their sum first where there are several, or where it
    is not the only term itself.
    """
    asked = dict(zip(kind_names([term["kind"] for term in objective]), objective, strict=True))
    names = [name for name in curves if name != TOTAL]
    alone = len(names) == 1 and asked.get(names[0], {}).get("weight", 1.0) == 1.0
    shown = names if alone or TOTAL not in curves else [TOTAL, *names]
    rows = []
    for number, name in enumerate(shown):
        values = dict(asked.get(name, {}))
        values.pop("kind", None)
        weight = values.pop("weight", None)
        plain = {key: value for key, value in values.items() if value is not None}
        ends = first_and_last(curves[name])
        rows.append(TermRow(name, weight, plain, *ends, f"loss-{number}"))
    return rows


def use_in_run(record: EditorRecord, root: str) -> dict[str, Any]:
    """The sections of a run's config that apply the editor in the folder `root`."""
    if record.purpose == RECONSTRUCTION:
        return {"model": {"rectifier": root}}
    entry = {"labels": [record.label], "strengths": [0.5, 1.0]}
    return {
        "learned": {"path": root, "ids": [record.id]},
        "edit": {"window": list(record.window), "plan": {"entries": [entry]}},
    }


def _trained(root: str, fingerprint: str) -> EditorRecord | None:
    """What this training has made, among what else its folder holds; None while it is not over."""
    try:
        about = json.loads(storage.read_bytes(storage.join(root, LIBRARY_RECORD)))
    except FileNotFoundError:
        return None
    own = about.get("trained", {}).get("editor")
    for record in read_editor_rows(root):
        if record.id == own or (own is None and record.fingerprint == fingerprint):
            return record
    return None


def _left_s(progress: Progress, batch_size: int) -> float | None:
    if not progress.examples_per_s:
        return None
    return (progress.steps - progress.step) * batch_size / progress.examples_per_s
