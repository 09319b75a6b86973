"""The terms of the loss that an editor is trained with, told apart by `kind`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from lib.models.checkpoint import EMBEDDED
from lib.objectives.prompt_templates import NAMED, PLAIN
from lib.objectives.wishes import By, To, Wish
from pipelines.config_section import Section

Text = Annotated[str, Field(pattern=r"\S")]
Weight = Annotated[float, Field(gt=0.0)]
Extension = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]


class ClipTerm(Section):
    """The directional CLIP loss: the prediction's embedding moves as the text's (Asyrp,
    DiffusionCLIP, Hou).
    """

    kind: Literal["clip"]
    weight: Weight = 1.0
    """Of this term in the sum."""
    model: str
    """A CLIP model: a folder in transformers format with safetensors weights."""
    source: Text
    """What the images show, such as `face`."""
    target: Text
    """What they should show, such as `smiling face`."""
    templates: Literal["imagenet"] | tuple[str, ...] = PLAIN
    """Sentences with `{}` for the text, whose embeddings are averaged, or `imagenet` for a set of
    18; without, the texts as they are.
    """
    form: Literal["cosine", "log"] = "cosine"
    """cosine: L = 1 - cos, as in the papers; log: -log((2 - L) / 2), as in the released codes."""
    against: Literal["prediction", "image"] = "prediction"
    """Where the change starts. prediction: the unedited prediction at the same timestep, as in
    Asyrp's paper; image: the real image, as in its released code, in DiffusionCLIP and in Hou.
    """

    @field_validator("templates")
    @classmethod
    def _with_place(cls, templates: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(templates, str):
            return templates
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"expected {{}} once in each template, got {template!r}")
        if not templates or len(set(templates)) != len(templates):
            raise ValueError("expected one or more distinct templates")
        return templates

    @model_validator(mode="after")
    def _two_texts(self) -> Self:
        if self.source.split() == self.target.split():
            raise ValueError(f"expected a target other than the source, got {self.target!r} twice")
        return self

    @property
    def template_texts(self) -> tuple[str, ...]:
        """The templates themselves."""
        return NAMED[self.templates] if isinstance(self.templates, str) else self.templates


class AttributeTerm(Section):
    """An output of a classifier changes by, or to, a number; the others stay as `keep` asks."""

    kind: Literal["attribute"]
    weight: Weight = 1.0
    """Of this term in the sum."""
    classifier: str = EMBEDDED
    """A transformers image-classification folder, or `embedded` for the demo's factor regressor."""
    name: Text
    """Of the output that should change."""
    by: float | None = None
    """For regressions, as `embedded`: how much more than for the unedited prediction."""
    to: float | None = None
    """The value to reach; for classes their probability: 1 for the class, 0 for its absence."""
    keep: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight, beside the output's own loss, of the mean squared change of all other outputs."""

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if (self.by is None) == (self.to is None):
            raise ValueError("expected either `by` or `to`")
        if self.by == 0:
            raise ValueError("expected `by` other than 0, which asks for no change")
        return self

    @property
    def wish(self) -> Wish:
        """What the output should become."""
        return To(self.to) if self.to is not None else By(self.by or 0.0)


class PairedTerm(Section):
    """The change of the prediction is that from the image to its counterfactual, relative to the
    size of that change.
    """

    kind: Literal["paired"]
    weight: Weight = 1.0
    """Of this term in the sum."""
    file: Extension
    """The side file that holds every sample's counterfactual: everything after the first dot, such
    as `smile.png`.
    """
    norm: Literal["l1", "l2"] = "l2"
    """l2: mean square over pixels; l1: mean absolute value."""


class PixelTerm(Section):
    """The prediction stays: mean absolute change of its pixels."""

    kind: Literal["l1"]
    weight: Weight = 1.0
    """Of this term in the sum."""
    against: Literal["prediction", "image"] = "prediction"
    """Change since the unedited prediction at the same timestep (Asyrp), or since the real image
    (Hou, DiffusionCLIP).
    """


class IdentityTerm(Section):
    """What an image encoder sees stays: 1 - the cosine of embeddings; with a face encoder, the
    identity.
    """

    kind: Literal["identity"]
    weight: Weight = 1.0
    """Of this term in the sum."""
    model: str
    """A transformers image-encoder folder (CLIP, DINOv2, ViT, a face encoder), or `embedded`."""
    against: Literal["prediction", "image"] = "prediction"
    """Compared with the unedited prediction at the same timestep, or with the real image."""


Term = Annotated[
    ClipTerm | AttributeTerm | PairedTerm | PixelTerm | IdentityTerm, Field(discriminator="kind")
]


def _one_target(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    if not terms:
        return terms
    files = sorted({term.file for term in terms if isinstance(term, PairedTerm)})
    if len(files) > 1:
        raise ValueError(f"expected one counterfactual file for all paired terms, got {files}")
    if all(isinstance(term, PixelTerm | IdentityTerm) for term in terms):
        raise ValueError(
            "expected a term that asks for a change (clip, attribute or paired), got only"
            f" {[term.kind for term in terms]}"
        )
    return terms


Terms = Annotated[tuple[Term, ...], AfterValidator(_one_target)]
"""Of one editor; none of a rectifier that learns to reconstruct."""


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """Distinct names, for curves and errors: `clip`, and `clip_2` for a second of the kind."""
    return kind_names([term.kind for term in terms])


def kind_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """The names of terms of these kinds."""
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind}_{seen[kind]}")
    return tuple(names)


def target_file(terms: Sequence[Term]) -> str | None:
    """The side file with counterfactuals; None where no term asks for them."""
    return next((term.file for term in terms if isinstance(term, PairedTerm)), None)


def located(terms: Sequence[Term], absolute: Callable[[str], str]) -> tuple[Term, ...]:
    """The same with the paths of models made absolute."""

    def path(model: str) -> str:
        return model if model == EMBEDDED else absolute(model)

    moved: list[Term] = []
    for term in terms:
        match term:
            case ClipTerm() | IdentityTerm():
                moved.append(term.model_copy(update={"model": path(term.model)}))
            case AttributeTerm():
                moved.append(term.model_copy(update={"classifier": path(term.classifier)}))
            case _:
                moved.append(term)
    return tuple(moved)
