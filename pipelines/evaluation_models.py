"""The models that the section `evaluate` asks for, before any is loaded: what they are, for the
fingerprint, and whether they fit. No torch, unless LPIPS is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import (
    classifier_names,
    classifier_sha256,
    image_encoder_sha256,
    text_image_sha256,
)
from lib.problems import ConfigProblem
from pipelines.evaluate_config import (
    AttributeChanges,
    DirectionalScore,
    Evaluate,
    LpipsScore,
    ScoreKind,
    SimilarityScore,
)

_EMBEDDED_SIZE = 64


def fields_by_content(evaluate: Evaluate) -> dict[str, Any]:
    """The section as JSON fields, with hashes in the place of paths.

    Raises:
        ModelProblem: the files of a model are not there.
    """
    fields: dict[str, Any] = evaluate.model_dump(mode="json")
    for name, score in evaluate.scores.items():
        fields["scores"][name].pop("model", None)
        fields["scores"][name]["content"] = _score_content(score)
    if evaluate.attributes is not None:
        del fields["attributes"]["classifier"]
        fields["attributes"]["content"] = classifier_sha256(evaluate.attributes.classifier)
    return fields


def refuse_unfit_models(evaluate: Evaluate, image_size: int) -> None:
    """Raises ConfigProblem where a classifier lacks an output that is asked for, or the embedded
    regressor is to read images of another size; ModelProblem where a folder cannot be read.
    """
    if evaluate.attributes is not None:
        _refuse_unknown_names(evaluate.attributes)
    for option in _embedded_options(evaluate):
        if image_size != _EMBEDDED_SIZE:
            raise ConfigProblem(
                f"{option}: the embedded regressor reads images of {_EMBEDDED_SIZE} pixels, and"
                f" this model makes images of {image_size}; expected a transformers folder"
            )


def _score_content(score: ScoreKind) -> str:
    match score:
        case LpipsScore():
            from lib.metrics.lpips_network import lpips_version

            return lpips_version()
        case SimilarityScore():
            return image_encoder_sha256(score.model)
        case DirectionalScore():
            return text_image_sha256(score.model)


def _refuse_unknown_names(attributes: AttributeChanges) -> None:
    known = classifier_names(attributes.classifier)
    for name in attributes.names:
        if known.count(name) != 1:
            nearest = get_close_matches(name, known, n=1, cutoff=0.0)
            has = f"{known.count(name)} outputs are" if name in known else "no output is"
            raise ConfigProblem(
                f"evaluate.attributes.names: {has} called {name!r}; the nearest is"
                f" {nearest[0] if nearest else known[0]!r} (of {len(known)})"
            )


def _embedded_options(evaluate: Evaluate) -> Iterator[str]:
    for name, score in evaluate.scores.items():
        if isinstance(score, SimilarityScore) and score.model == EMBEDDED:
            yield f"evaluate.scores.{name}.model"
    if evaluate.attributes is not None and evaluate.attributes.classifier == EMBEDDED:
        yield "evaluate.attributes.classifier"
