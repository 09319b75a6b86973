"""The section `evaluate` of a config: what is measured of every edit beyond the columns that all
runs have, and which edits are good enough.

It changes no pixel, but it changes rows and decides which edits there are: so it is part of the
fingerprint (models by what is in them), but not of the seeds, and the edits of a run that measures
more or filters otherwise are the same to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.metrics.columns import CHANGE_PREFIX, FIXED, SCORE_PREFIX
from lib.metrics.rules import Rule, check_known, parse_rule
from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import classifier_names
from pipelines.config_section import Name, Section, Timestep, distinct_timesteps


class Filters(Section):
    """What an edit must fulfil, and what becomes of one that does not."""

    rules: tuple[str, ...] = ()
    """Such as `roir < 0.5`: a metric (a column of numbers that are measured), one of < <= > >=, and
    a number. NaN and null fulfil no rule.
    """
    action: Literal["mark", "drop"] = "mark"
    """mark: all edits stay, the column `filtered` names the first rule that each breaks; drop:
    those that break one are not written, and an image without any other edit is an error.
    """

    @field_validator("rules")
    @classmethod
    def _readable(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(parse_rule(rule).text for rule in rules)
        if len(set(texts)) != len(texts):
            raise ValueError("expected distinct rules")
        return texts

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules, in their order."""
        return tuple(parse_rule(rule) for rule in self.rules)


class LpipsScore(Section):
    """LPIPS between original and edited image."""

    kind: Literal["lpips"]
    net: Literal["alex", "vgg", "squeeze"] = "alex"
    """Whose features are compared."""


class SimilarityScore(Section):
    """Cosine between the embeddings of original and edited image."""

    kind: Literal["similarity"]
    model: str
    """A transformers image-encoder folder (CLIP, DINOv2, ViT, a face encoder), or `embedded`."""


class DirectionalScore(Section):
    """CLIP directional similarity: whether the image changed as the texts differ."""

    kind: Literal["directional"]
    model: str
    """A folder with a CLIP model in transformers format."""
    source: str
    """What the images show, in words."""
    target: str
    """What the edits are to show."""


ScoreKind = LpipsScore | SimilarityScore | DirectionalScore


class AttributeChanges(Section):
    """How far a classifier's outputs move from the reconstruction to the edited image."""

    classifier: str = EMBEDDED
    """A transformers image-classification folder, or `embedded` for the demo's factor regressor."""
    names: tuple[str, ...] = ()
    """Of its outputs; empty, with `embedded` only: all."""

    @model_validator(mode="before")
    @classmethod
    def _all_embedded(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("names"):
            return values
        if values.get("classifier", EMBEDDED) != EMBEDDED:
            raise ValueError("expected names with a classifier of your own")
        return values | {"names": classifier_names(EMBEDDED)}

    @field_validator("names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("expected distinct names")
        return names


class Evaluate(Section):
    """What is measured of every edit, and which edits are good enough."""

    filters: Filters = Filters()
    """`{rules: ["roir < 0.5", "in_l2 > 0.02"], action: mark}`; drop leaves such edits out."""
    scores: dict[Name, ScoreKind] = Field(default_factory=dict)
    """Name to `{kind: lpips}`, `{kind: similarity, model: FOLDER}` or `{kind: directional, model:
    FOLDER, source: TEXT, target: TEXT}`; each is a column `score_<name>`.
    """
    attributes: AttributeChanges | None = None
    """`{classifier: embedded, names: [smile, gaze]}`; each is a column `change_<name>`."""
    posterior_gap: tuple[Timestep, ...] = ()
    """At the nearest grid timesteps, each for one more network evaluation an image; empty: not."""

    @field_validator("posterior_gap")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)

    @model_validator(mode="after")
    def _rules_on_known_metrics(self) -> Self:
        check_known(self.filters.parsed, self.metrics)
        return self

    def located(self, absolute: Callable[[str], str]) -> Evaluate:
        """The same with the paths of models made absolute."""

        def path(model: str) -> str:
            return model if model == EMBEDDED else absolute(model)

        scores: dict[str, ScoreKind] = {
            name: score
            if isinstance(score, LpipsScore)
            else score.model_copy(update={"model": path(score.model)})
            for name, score in self.scores.items()
        }
        update: dict[str, object] = {"scores": scores}
        if self.attributes is not None:
            classifier = path(self.attributes.classifier)
            update["attributes"] = self.attributes.model_copy(update={"classifier": classifier})
        return self.model_copy(update=update)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that rules may be on."""
        fixed = [n for n in FIXED if n != "posterior_gap" or self.posterior_gap]
        attributes = () if self.attributes is None else self.attributes.names
        return (
            *fixed,
            *(SCORE_PREFIX + name for name in sorted(self.scores)),
            *(CHANGE_PREFIX + name for name in attributes),
        )
