"""The section `segment`: named regions, and the providers that some of them come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.masks.class_names import ORDERS, PARTS, mixed_orders
from pipelines.config_section import Fraction, Name, Section

Extension = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]
"""Of a side file: everything after the first dot, such as `eyes.png`."""
Rectangle = tuple[Fraction, Fraction, Fraction, Fraction]
"""left, top, right, bottom as fractions of the image after fitting."""


class MaskFile(Section):
    """A region read from a side file of the sample."""

    file: Extension
    """The side file's extension: everything after the first dot, such as `eyes.png`."""


class Box(Section):
    """A region that is the same rectangle in every image."""

    box: Rectangle
    """left, top, right, bottom as fractions of the image after fitting."""

    @field_validator("box")
    @classmethod
    def _ordered(cls, box: Rectangle) -> Rectangle:
        return _ordered(box)


class Classes(Section):
    """A region made of classes that a provider tells apart."""

    provider: Annotated[Name, Field(alias="from")]
    """A name in `segment.providers`."""
    labels: Annotated[tuple[int | str, ...], Field(min_length=1)]
    """Names or numbers of classes; the region is all of them together."""


class Prompt(Section):
    """A region that a mask-generation model finds at a place."""

    provider: Annotated[Name, Field(alias="from")]
    """A name in `segment.providers`."""
    points: tuple[tuple[Fraction, Fraction], ...] = ()
    """x, y of points inside, as fractions of the image after fitting."""
    within: Rectangle | None = None
    """left, top, right, bottom of a box around it; alone, or with points."""

    @field_validator("within")
    @classmethod
    def _ordered(cls, within: Rectangle | None) -> Rectangle | None:
        return None if within is None else _ordered(within)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.points and self.within is None:
            raise ValueError("expected points or within, or both")
        return self


class PartFiles(Section):
    """CelebAMask-HQ's part files as side files of the sample, one a part."""

    kind: Literal["part_files"]
    pattern: Annotated[str, Field(pattern=r"^[a-z0-9_.-]*\{\}[a-z0-9_.-]*$")] = "{}.png"
    """The side file's extension, with `{}` for the part."""
    parts: Annotated[tuple[Extension, ...], Field(min_length=1)] = PARTS
    """All parts of which there may be files; without it those of CelebAMask-HQ."""
    unite: bool = True
    """Left and right, and mouth and lips, also under one name."""

    @property
    def files(self) -> tuple[str, ...]:
        """Extensions of all side files that belong to it."""
        return tuple(self.pattern.format(part) for part in self.parts)


class LabelMap(Section):
    """One side file whose pixels are numbers of classes."""

    kind: Literal["label_map"]
    file: Extension
    """The side file's extension, such as `labels.png`."""
    classes: Literal["celebamask_hq", "bisenet"] | dict[str, Annotated[int, Field(ge=0)]]
    """A published order of face parts, or name to number for every value in the files."""
    unite: bool = True
    """Left and right, and mouth and lips, also under one name."""

    @property
    def names(self) -> dict[int, str]:
        """Number -> name."""
        if isinstance(self.classes, str):
            return dict(enumerate(ORDERS[self.classes]))
        return {number: name for name, number in self.classes.items()}

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if isinstance(self.classes, str):
            return self
        if not self.classes:
            raise ValueError("expected at least one class")
        if len(self.names) < len(self.classes):
            raise ValueError("expected classes with different numbers")
        mixed = mixed_orders(self.classes)
        if mixed is not None:
            raise ValueError(
                f"expected classes of one order, but {mixed}; the published orders can be had by"
                " name: celebamask_hq, bisenet"
            )
        return self


class Semantic(Section):
    """A semantic-segmentation network, such as a face parser."""

    kind: Literal["semantic"]
    model: str
    """A folder in transformers format with safetensors weights and its image processor."""
    unite: bool = True
    """Left and right, and mouth and lips, also under one name."""


class MaskGeneration(Section):
    """A network that finds the mask of what lies at a point or in a box (SAM)."""

    kind: Literal["mask_generation"]
    model: str
    """A folder in transformers format with safetensors weights and its image processor."""


class Automatic(Section):
    """Regions that the diffusion model tells apart by itself, found by `pipeline: region_model`."""

    kind: Literal["automatic"]
    path: str
    """The run that learned them, or its `regions.safetensors`."""
    min_component: Fraction = 0.001
    """A connected piece of a region that is a smaller part of the image is dropped."""


Source = MaskFile | Box | Classes | Prompt
"""Where one region comes from."""
Provider = PartFiles | LabelMap | Semantic | MaskGeneration | Automatic
"""What several regions may come from."""


class Segment(Section):
    """Where the regions come from."""

    regions: dict[Name, Source]
    """Name to `{file: EXT}`, a side file of the sample; `{box: [left, top, right, bottom]}`;
    `{from: PROVIDER, labels: [...]}`, classes of a provider; or `{from: PROVIDER, points: [[x, y],
    ...]}` or `{from: PROVIDER, within: [left, top, right, bottom]}`, what a mask-generation model
    finds there. Empty, or no section at all, only for pca, supervised and none, which need no
    regions.
    """
    providers: dict[Name, Annotated[Provider, Field(discriminator="kind")]] = Field(
        default_factory=dict
    )
    """Name to `{kind: ...}`: what several regions come from."""
    dilation: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Every mask is widened by this fraction of the side."""
    min_area: Fraction = 0.0005
    """A mask that covers less of the image is an error of that sample."""
    max_area: Fraction = 0.95
    """A mask that covers more of the image is an error of that sample."""


def _ordered(box: Rectangle) -> Rectangle:
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise ValueError("expected left < right and top < bottom")
    return box
