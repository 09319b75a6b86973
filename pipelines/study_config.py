"""The methods of the section `discover` that learn from all images of a run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config_section import Name, PositiveInt, Section, Timestep, distinct_timesteps


class PcaDiscovery(Section):
    """Principal components of h over all images of the run (Haas)."""

    method: Literal["pca"]
    timesteps: tuple[Timestep, ...] = ()
    """The nearest grid timesteps are used; empty: every grid timestep in `edit.window`."""
    capture: Literal["exact", "inversion"] = "exact"
    """exact: h at x_t, one network evaluation a timestep; inversion: h as the network has it while
    the image is inverted, which costs nothing and differs as far as inversion is inexact.
    """
    components: PositiveInt = 10
    """Directions to store; with mode per_step, of every timestep."""
    mode: Literal["per_step", "joint"] = "joint"
    """joint: one analysis of all timesteps together, a direction has a step for each; per_step:
    each timestep alone.
    """
    sketch_rank: PositiveInt = 256
    """Rows of the factor that a shard keeps of its images. Exact while a run has no more images;
    what is cut off beyond is counted.
    """

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)

    @model_validator(mode="after")
    def _enough_rows(self) -> Self:
        if self.sketch_rank < self.components:
            raise ValueError(
                f"expected sketch_rank at least as large as components ({self.components})"
            )
        return self


class FieldLabel(Section):
    """A label that the shard brings."""

    field: str
    """A key of the sample's `.json` whose value is a number or a bool."""


class ClassLabel(Section):
    """A label that a classifier gives."""

    output: Annotated[int | str, Field(alias="class")]
    """Index or name of the classifier's output."""


class SupervisedDiscovery(Section):
    """Directions from images that have a property to images that do not (Haas, eq. 11)."""

    method: Literal["supervised"]
    timesteps: tuple[Timestep, ...] = ()
    """The nearest grid timesteps are used; empty: every grid timestep in `edit.window`."""
    capture: Literal["exact", "inversion"] = "exact"
    """exact: h at x_t, one network evaluation a timestep; inversion: h as the network has it while
    the image is inverted, which costs nothing and differs as far as inversion is inexact.
    """
    labels: Annotated[dict[Name, FieldLabel | ClassLabel], Field(min_length=1)]
    """Name to `{field: KEY}`, a number in the sample's `.json`, or `{class: OUTPUT}`, an output of
    the classifier by index or name.
    """
    classifier: str | None = None
    """A transformers image-classification folder, or `embedded` for the demo's factor regressor."""
    examples: Annotated[int, Field(ge=2)] = 100
    """The highest- and the lowest-scored images of every label that are compared; fewer where the
    run has fewer.
    """
    fit: Literal["mean", "logistic"] = "mean"
    """mean: difference of the two means; logistic: normal of a logistic regression."""
    l2: Annotated[float, Field(gt=0.0)] = 0.1
    """Ridge of the logistic regression; the mean does not use it."""
    balance: Name | None = None
    """A label whose images above and below `balance_threshold` contribute equally to every other
    label.
    """
    balance_threshold: float = 0.5
    """The score that divides the images by the label `balance`."""

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)

    @model_validator(mode="after")
    def _known(self) -> Self:
        classes = sorted(n for n, s in self.labels.items() if isinstance(s, ClassLabel))
        if classes and self.classifier is None:
            raise ValueError(f"expected a classifier, which the labels {classes} ask for")
        if self.balance is not None and self.balance not in self.labels:
            raise ValueError(
                f"expected balance to be one of the labels {sorted(self.labels)}, got"
                f" {self.balance!r}"
            )
        return self


DatasetDiscovery = PcaDiscovery | SupervisedDiscovery
"""The methods that learn from all images of a run, and need no regions."""
