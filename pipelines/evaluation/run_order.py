"""What `deltah evaluate RUN --config` is to measure, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from lib.files import storage
from lib.files.schemas import SCHEMA_VERSION
from lib.fingerprint import fingerprint
from lib.ledger.commit_record import CommitDamageError, read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.metrics.columns import CHANGE_PREFIX, SCORE_PREFIX
from lib.models.transformers_folder import image_encoder_sha256
from lib.problems import ConfigProblem
from lib.provenance import package_versions
from pipelines.config import RunConfig
from pipelines.config_file import read_values
from pipelines.config_mistakes import explain, switches_taken_for_numbers
from pipelines.evaluate_config import Evaluate
from pipelines.evaluation.orders import Order, PairSource, RunSource
from pipelines.evaluation.outputs import evaluation_folder
from pipelines.evaluation.run_evaluation import run_of_edits
from pipelines.evaluation_models import fields_by_content
from pipelines.presets import PRESETS


@dataclass(frozen=True, slots=True)
class Todo:
    """Shards to measure, and those that an earlier call has measured."""

    order: Order
    shards: tuple[str, ...]
    done: int
    notices: tuple[str, ...] = ()


def load_evaluate(path: str) -> Evaluate:
    """The section `evaluate` of a YAML file that holds it alone, with or without its heading.

    Raises:
        ConfigProblem: names every mistake; or it asks for what needs the diffusion model.
    """
    given = read_values(path)
    section = given["evaluate"] if set(given) == {"evaluate"} else given
    values = {**PRESETS["demo"]().model_dump(mode="json"), "evaluate": section}
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        mistakes = explain(error, values)
    else:
        mistakes = switches_taken_for_numbers(config, values)
        if config.evaluate.posterior_gap:
            mistakes.append(
                "  evaluate.posterior_gap: needs the diffusion model; expected it in the config of"
                " a run, not of an evaluation"
            )
        if not mistakes:
            return config.evaluate
    counted = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    raise ConfigProblem("\n".join([f"{storage.redact(path)}: {counted}", *mistakes]))


def run_order(root: str, evaluate: Evaluate, embedding: str | None) -> Todo:
    """Columns that the run has are not measured again: its own are against the reconstruction.

    Raises:
        RunConflict, ConfigProblem: there is no run with edits at `root`.
        ModelProblem: the files of a model are not there.
    """
    folder = RunFolder(root)
    run_of_edits(folder)
    shards = sorted(folder.committed())
    there = _columns(folder, shards)
    left, notices = _without(evaluate, there)
    of = str(folder.read_run()["fingerprint"])
    order = make_order(evaluation_folder(root), left, embedding, RunSource(root), of)
    if not order.measures:
        return Todo(order, (), len(shards), notices)
    done = order.files.done() & set(shards)
    return Todo(order, tuple(s for s in shards if s not in done), len(done), notices)


def make_order(
    folder: str,
    evaluate: Evaluate,
    embedding: str | None,
    source: RunSource | PairSource,
    of: str,
) -> Order:
    """`of` names the pictures: the run's fingerprint, or a hash of shards."""
    content = None if embedding is None else image_encoder_sha256(embedding)
    fields = {
        "schema_version": SCHEMA_VERSION,
        "versions": dict(package_versions()),
        "evaluate": {**fields_by_content(evaluate), "filters": None},
        "embedding": content,
        "of": of,
    }
    return Order(evaluate.model_dump_json(), embedding, folder, fingerprint(fields), source)


def _columns(folder: RunFolder, shards: list[str]) -> set[str]:
    for shard in shards:
        try:
            return set(read_commit_rows(folder.commit_url(shard))[1].column_names)
        except CommitDamageError:
            continue
    return set()


def _without(evaluate: Evaluate, there: set[str]) -> tuple[Evaluate, tuple[str, ...]]:
    scores = {n: s for n, s in evaluate.scores.items() if SCORE_PREFIX + n not in there}
    known = sorted({*evaluate.scores} - {*scores})
    attributes = evaluate.attributes
    if attributes is not None:
        names = tuple(n for n in attributes.names if CHANGE_PREFIX + n not in there)
        known += [n for n in attributes.names if n not in names]
        attributes = attributes.model_copy(update={"names": names}) if names else None
    notices = [f"the run has measured {', '.join(known)} itself: its numbers stay"] if known else []
    left = evaluate.model_copy(update={"scores": scores, "attributes": attributes})
    return left, tuple(notices)
