"""The objective of a config: what it is for the fingerprint, whether it can be, and itself.

Torch is imported with the first model only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import (
    classifier_answer,
    classifier_names,
    classifier_sha256,
    image_encoder_sha256,
    name_index,
    open_image_encoder,
    open_text_image,
    text_image_sha256,
)
from lib.objectives.prompt_templates import filled
from lib.objectives.wishes import refuse_unfit_wish
from lib.problems import ConfigProblem
from pipelines.training.objective_config import (
    AttributeTerm,
    ClipTerm,
    IdentityTerm,
    PairedTerm,
    PixelTerm,
    Term,
    term_names,
)

if TYPE_CHECKING:
    import torch

    from lib.objectives.prediction import Objective
    from lib.objectives.weighted_sum import WeightedSum

_EMBEDDED_SIZE = 64


def objective_content(terms: Sequence[Term]) -> dict[str, Any]:
    """The terms by name as JSON fields, with hashes in the place of paths, and templates in the
    place of a set's name.

    Raises:
        ModelProblem: the files of a model are not there.
    """
    content: dict[str, Any] = {}
    for name, term in zip(term_names(terms), terms, strict=True):
        fields: dict[str, Any] = term.model_dump(mode="json")
        match term:
            case ClipTerm():
                fields["templates"] = list(term.template_texts)
                del fields["model"]
                fields["model_sha256"] = text_image_sha256(term.model)
            case AttributeTerm():
                del fields["classifier"]
                fields["classifier_sha256"] = classifier_sha256(term.classifier)
            case IdentityTerm():
                del fields["model"]
                fields["model_sha256"] = image_encoder_sha256(term.model)
        content[name] = fields
    return content


def refuse_unfit_objective(terms: Sequence[Term], image_size: int) -> None:
    """Without the weights of any model: are its files there, can it read the texts, has it the
    output, and does it read images of this size?

    Raises:
        ConfigProblem: a text is too long with a template, an output is not there or cannot become
            what is wished, or the embedded regressor is to read images of another size.
        ModelProblem: a folder cannot be read.
    """
    for name, term in zip(term_names(terms), terms, strict=True):
        try:
            _refuse_unfit(term, image_size)
        except ConfigProblem as problem:
            raise ConfigProblem(f"objective {name}: {problem}") from problem


def build_objective(terms: Sequence[Term], device: torch.device) -> WeightedSum:
    """The objective with its models loaded, frozen, on `device`; a model that several terms name is
    loaded once for each of them.

    Raises:
        ConfigProblem: as `refuse_unfit_objective`, or two texts are the same to the model.
        ModelProblem: a model cannot be used.
    """
    from lib.objectives.weighted_sum import WeightedSum

    names = term_names(terms)
    return WeightedSum(
        [(t.weight, _built(t, name, device)) for name, t in zip(names, terms, strict=True)]
    )


def _refuse_unfit(term: Term, image_size: int) -> None:
    match term:
        case ClipTerm():
            from lib.models.text_tokens import load_text_tokens

            tokens = load_text_tokens(open_text_image(term.model))
            for text in (term.source, term.target):
                for prompt in filled(term.template_texts, text):
                    tokens.read(prompt)
        case AttributeTerm():
            name_index(classifier_names(term.classifier), term.name)
            refuse_unfit_wish(classifier_answer(term.classifier), term.wish)
            _refuse_size(term.classifier, image_size)
        case IdentityTerm():
            if term.model != EMBEDDED:
                open_image_encoder(term.model)
            _refuse_size(term.model, image_size)
        case _:
            pass


def _refuse_size(model: str, image_size: int) -> None:
    if model == EMBEDDED and image_size != _EMBEDDED_SIZE:
        raise ConfigProblem(
            f"the embedded regressor reads images of {_EMBEDDED_SIZE} pixels, and this model makes"
            f" images of {image_size}; expected a transformers folder"
        )


def _built(term: Term, name: str, device: torch.device) -> Objective:
    match term:
        case ClipTerm():
            from lib.models.text_image import load_text_image
            from lib.objectives.clip_direction import ClipDirection

            judge = load_text_image(term.model, device)
            change_E = judge.difference(term.source, term.target, term.template_texts)
            return ClipDirection(judge, change_E, term.form, term.against, name)
        case AttributeTerm():
            from lib.models.classifier_network import load_differentiable_classifier
            from lib.objectives.attribute import Attribute

            classifier = load_differentiable_classifier(term.classifier, device)
            return Attribute(classifier, term.name, term.wish, term.keep, name)
        case PairedTerm():
            from lib.objectives.pixels import PairedChange

            return PairedChange(term.norm, name)
        case PixelTerm():
            from lib.objectives.pixels import PixelDistance

            return PixelDistance(term.against, name)
        case IdentityTerm():
            from lib.models.encoder_network import load_differentiable_encoder
            from lib.objectives.identity import Identity

            encoder = load_differentiable_encoder(term.model, device)
            return Identity(encoder.embed, term.against, name)
