"""Figures of any two sets of image shards, and what did not match in them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lib.files import parquet, storage
from lib.files.samples import ShardDamage
from lib.fingerprint import canonical_json
from lib.metrics.columns import FIXED
from lib.metrics.disentanglement import matrix
from lib.metrics.edit_rows import edit_rows
from lib.metrics.rules import Rule
from lib.problems import ConfigProblem
from lib.receipts import Failure
from pipelines.evaluate_config import Evaluate
from pipelines.evaluation.figures import figure_rows
from pipelines.evaluation.joined import Joined
from pipelines.evaluation.orders import Order, PairSource
from pipelines.evaluation.outputs import write_errors, write_figures, write_matrix, write_spread
from pipelines.evaluation.pair_measurer import contents_of, keys_url, pair_columns, read_keys
from pipelines.evaluation.run_evaluation import Evaluation
from pipelines.evaluation.run_order import Todo, make_order
from pipelines.evaluation.run_sums import RunSums
from pipelines.inputs import expand_inputs

_NAME = "edited"


def pair_order(
    originals: Sequence[str],
    edited: Sequence[str],
    output: str,
    masks: str | None,
    evaluate: Evaluate,
    embedding: str | None,
) -> Todo:
    """What is to be measured; reads the keys of all originals, once.

    Raises:
        ConfigProblem: no shard is found, or a rule is on a number that such pairs do not have.
        ModelProblem: the files of a model are not there.
    """
    source = PairSource(
        tuple(shard.url for shard in expand_inputs(originals)),
        tuple((shard.name, shard.url) for shard in expand_inputs(edited)),
        masks,
    )
    columns = pair_columns(masks is not None, _own(evaluate))
    for rule in evaluate.filters.parsed:
        if rule.metric not in columns:
            raise ConfigProblem(
                f"evaluate.filters: the rule `{rule.text}` is on no number of pairs of images"
                f"{'' if masks else ' without --masks'}; there are {', '.join(columns)}"
            )
    order = make_order(output, evaluate, embedding, source, _versions(source))
    _write_keys(order, source)
    names = [name for name, _ in source.edited]
    done = order.files.done()
    return Todo(order, tuple(n for n in names if n not in done), len(done.intersection(names)))


def evaluate_pairs(todo: Todo, rules: tuple[Rule, ...], problems: Sequence[str]) -> Evaluation:
    """Write the files of `pipelines.evaluation.outputs`, as far as the shards were measured."""
    source = todo.order.source
    if not isinstance(source, PairSource):
        raise TypeError(f"expected an order of pairs, got {source}")
    joined = Joined(todo.order.files, rules, todo.order.embedding)
    sums, keys, shards = RunSums({}), set[str](), 0
    for name, _ in source.edited:
        if name not in todo.order.files.done():
            continue
        measured = todo.order.files.read(name)
        keys.update(key for key in measured["key"].to_pylist() if key is not None)
        table = joined(name, _as_edits(measured))
        sums.add(edit_rows(name, table, lambda row: _NAME))
        shards += 1
    joined.failures += _without_edit(todo.order, source, keys)
    write_errors(todo.order.folder, joined.failures)
    if not sums.edits:
        raise ConfigProblem(
            f"{storage.redact(todo.order.folder)}: expected pairs of images to compare, found none"
            f" in {len(source.edited)} shards; errors.parquet there says why, key by key"
            if not problems
            else "; ".join(problems)
        )
    rows = matrix(sums.effects)
    figures = [*figure_rows(sums, rows), *joined.figures()]
    write_figures(todo.order.folder, figures)
    write_matrix(todo.order.folder, rows, sums.dials)
    write_spread(todo.order.folder, joined.record())
    return Evaluation(
        folder=todo.order.folder,
        figures=tuple(figures),
        matrix=tuple(rows),
        shards=shards,
        pending=0,
        notices=(*joined.notices, *problems),
        failures=len(joined.failures),
    )


def _own(evaluate: Evaluate) -> tuple[str, ...]:
    return tuple(m for m in evaluate.metrics if m not in FIXED)


def _as_edits(measured: pa.Table) -> pa.Table:
    """The place of every edit, with the columns that name an edit of a run: none of them says
    anything.
    """
    rows = measured.filter(measured["edit"].is_valid()).select(["index", "edit"])
    nothing: dict[str, tuple[object, pa.DataType]] = {
        "region": ("", pa.string()),
        "direction": (None, pa.string()),
        "rank": (None, pa.int32()),
        "added_directions": ([], pa.list_(pa.string())),
        "added_ranks": ([], pa.list_(pa.int32())),
        "strength": (0.0, pa.float32()),
        "filtered": (None, pa.string()),
    }
    for name, (value, kind) in nothing.items():
        column = pa.array([value] * rows.num_rows, kind)
        rows = rows.append_column(pa.field(name, kind), column)
    return rows


def _without_edit(order: Order, source: PairSource, keys: set[str]) -> list[Failure]:
    left = {k: place for k, place in read_keys(order).items() if k not in keys}
    return [
        Failure(
            storage.basename(source.originals[0 if place is None else place]),
            None, key, "evaluate", "no_edited", f"no edited sample has the key {key!r}",
        )
        for key, place in sorted(left.items())
    ]  # fmt: skip


def _versions(source: PairSource) -> str:
    """What names the content of all shards without reading them."""
    try:
        versions = [
            [url, storage.info(url).etag]
            for url in (*source.originals, *(url for _, url in source.edited))
        ]
    except FileNotFoundError as error:
        raise ConfigProblem(f"expected shards of images, found no file: {error}") from error
    return canonical_json([versions, len(source.originals), source.masks])


def _write_keys(order: Order, source: PairSource) -> None:
    if storage.exists(keys_url(order)):
        return
    found: dict[str, int | None] = {}
    for place, url in enumerate(source.originals):
        try:
            samples = contents_of(url, storage.basename(url)).samples
        except ShardDamage as error:
            raise ConfigProblem(f"--originals: {storage.redact(str(error))}") from error
        for raw in samples:
            found[raw.key] = None if raw.key in found else place
    table = pa.table(
        {
            "key": pa.array(list(found), pa.string()),
            "shard": pa.array(list(found.values()), pa.int32()),
        }
    )
    storage.replace(keys_url(order), parquet.encode(table))
