"""`deltah evaluate`: figures of a run, or of any pair of image shards. torch only where a model or
a picture is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.evaluation.run_order import Todo

_Run = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's output folder: a path or a URL.")
]


def evaluate(
    run_folder: _Run = None,
    config: Annotated[
        str | None,
        typer.Option(help="A YAML file with a section evaluate: scores, attributes, rules."),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="An image encoder: a folder, or `embedded`. For distances of sets."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that hold the models.")] = 1,
    originals: Annotated[
        list[str] | None, typer.Option(help="Instead of RUN: shards before editing. Repeatable.")
    ] = None,
    edited: Annotated[
        list[str] | None, typer.Option(help="The same samples after editing. Repeatable.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Where figures of such shards go.")] = None,
    masks: Annotated[
        str | None, typer.Option(help="Side file that says where an edit should be: eyes.png.")
    ] = None,
) -> None:
    """Say what the edits of a run, or of any two sets of shards, are worth, with 95 % intervals."""
    if run_folder is not None:
        if originals or edited or output or masks:
            raise typer.BadParameter(
                "expected either RUN, or --originals, --edited and --output without it"
            )
        raise typer.Exit(_of_run(run_folder, config, embedding, workers))
    if not (originals and edited and output):
        raise typer.BadParameter("expected RUN, or --originals, --edited and --output")
    raise typer.Exit(_of_pairs(originals, edited, output, masks, config, embedding, workers))


def _of_run(root: str, config: str | None, embedding: str | None, workers: int) -> int:
    from cluster.views.evaluation import show_evaluation
    from pipelines.evaluation.run_evaluation import evaluate_run

    if config is None and embedding is None:
        return show_evaluation(evaluate_run(root))
    from pipelines.evaluate_config import Evaluate
    from pipelines.evaluation.joined import Joined
    from pipelines.evaluation.run_order import load_evaluate, run_order
    from pipelines.evaluation.shard_measurer import RunMeasurer

    wanted = Evaluate() if config is None else load_evaluate(config)
    todo = run_order(root, wanted, embedding)
    problems = _measure(RunMeasurer, todo, workers)
    files = todo.order.files if todo.order.measures else None
    joined = Joined(files, wanted.filters.parsed, embedding)
    joined.notices += [*todo.notices, *problems]
    code = show_evaluation(evaluate_run(root, joined))
    return max(code, 1 if problems else 0)


def _of_pairs(
    originals: list[str],
    edited: list[str],
    output: str,
    masks: str | None,
    config: str | None,
    embedding: str | None,
    workers: int,
) -> int:
    from cluster.views.evaluation import show_evaluation
    from pipelines.evaluate_config import Evaluate
    from pipelines.evaluation.pair_evaluation import evaluate_pairs, pair_order
    from pipelines.evaluation.pair_measurer import PairMeasurer
    from pipelines.evaluation.run_order import load_evaluate

    wanted = Evaluate() if config is None else load_evaluate(config)
    todo = pair_order(originals, edited, output, masks, wanted, embedding)
    problems = _measure(PairMeasurer, todo, workers)
    evaluation = evaluate_pairs(todo, wanted.filters.parsed, problems)
    return max(show_evaluation(evaluation), 1 if problems else 0)


def _measure(make: type, todo: Todo, workers: int) -> list[str]:
    """Measure what is left, with a progress line; returns what is wrong with whole shards."""
    from cluster.evaluation_line import measuring_line
    from cluster.evaluation_pool import measure_shards

    if not todo.shards:
        return []
    problems = []
    with measuring_line(len(todo.shards), todo.done) as report:
        for receipt in measure_shards(make, todo.order, todo.shards, workers):
            report(receipt)
            if receipt.problem is not None:
                problems.append(receipt.problem)
    return problems
