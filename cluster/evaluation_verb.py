"""`deltah evaluate`: figures of a run, or of any pair of image shards. torch only where a model is
asked for.
"""

from __future__ import annotations

from typing import Annotated

import typer

_Run = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run's output folder: a path or a URL.")
]


def evaluate(run_folder: _Run = None) -> None:
    """Say what the edits of a run are worth, with 95 % intervals; writes RUN/evaluation/."""
    from cluster.evaluation_views import show_evaluation
    from pipelines.evaluation.run_evaluation import evaluate_run

    if run_folder is None:
        raise typer.BadParameter("expected a run's folder, or --originals and --edited")
    show_evaluation(evaluate_run(run_folder))
