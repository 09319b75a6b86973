"""The config of a run: one frozen pydantic tree, read from YAML, refused before work starts if
anything is wrong.

Nothing here imports torch or ray. What changes pixels enters the fingerprint
(`fingerprint_fields`); where things lie and how many workers there are does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lib.region_names import WHOLE
from pipelines.config_section import Fraction, Name, PositiveInt, Section
from pipelines.discovery_config import (
    Discovery,
    JacobianDiscovery,
    LibraryDiscovery,
    NoDiscovery,
)
from pipelines.edit_config import Edit
from pipelines.edit_plan_config import Combination, EditPlan
from pipelines.inversion_config import Invert
from pipelines.study_config import DatasetDiscovery


class Input(Section):
    """Which shards, and what to do with their images."""

    shards: Annotated[tuple[str, ...], Field(min_length=1)]
    """URLs of WebDataset tars; brace ranges `{00000..00127}` and globs are expanded."""
    fit: Literal["crop", "stretch"] = "crop"
    """How an image becomes square: the centred square is cut out, or the sides are scaled apart."""
    min_side: PositiveInt = 16
    """Images with a shorter side (pixels) are rejected."""
    max_pixels: PositiveInt = 100_000_000
    """Images with more pixels are rejected before they are decoded."""
    max_shard_bytes: PositiveInt = 4_000_000_000
    """A larger shard is quarantined instead of read into memory."""
    salvage: bool = False
    """Keep the readable samples of a damaged tar instead of giving the whole shard up."""


class Model(Section):
    """The pretrained diffusion model."""

    checkpoint: str = "embedded"
    """A folder in diffusers format with safetensors weights, a hub id such as
    google/ddpm-celebahq-256, or `embedded` for the face model in this repository. A folder of that
    name wins over a hub id.
    """
    revision: str | None = None
    """Of a hub id: branch, tag or commit; without one, the main branch. A commit never changes."""
    prompt: str = ""
    """What the images show, for a model that takes text (Stable Diffusion); empty is the empty
    prompt, with which it is unconditional.
    """
    negative_prompt: str = ""
    """What guidance leads away from, in the place of the empty prompt."""
    guidance_scale: Annotated[float, Field(ge=1.0)] = 1.0
    """Classifier-free guidance towards the prompt, in inversion and decoding alike; above 1 every
    network evaluation is two passes, and inversion is less exact. 1 is without guidance.
    """
    cpu_threads: PositiveInt = 1
    """Compute threads of each worker on a CPU. Kernels round differently with other numbers of
    threads, so part of the fingerprint.
    """
    h_layer: Literal["before", "middle", "after"] = "after"
    """Where h is read and shifted: input of the mid block, inside its second ResNet, or its
    output.
    """


class Grid(Section):
    """The one timestep grid that inversion and decoding share."""

    num_steps: Annotated[int, Field(ge=2, le=1000)] = 50
    """Network evaluations of a plain decode from the last timestep."""
    spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    """Where the timesteps lie, in the names of diffusers. linspace and leading begin at 0 and
    reconstruct better on few steps; linspace and trailing reach the last one.
    """


class MaskFile(Section):
    """A region read from a side file of the sample."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]
    """The side file's extension: everything after the first dot, such as `eyes.png`."""


class Box(Section):
    """A region that is the same rectangle in every image."""

    box: tuple[Fraction, Fraction, Fraction, Fraction]
    """left, top, right, bottom as fractions of the image after fitting."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        left, top, right, bottom = self.box
        if not (left < right and top < bottom):
            raise ValueError("expected left < right and top < bottom")
        return self


class Segment(Section):
    """Where the regions come from."""

    regions: dict[Name, MaskFile | Box]
    """Name to `{file: EXT}`, a side file of the sample, or `{box: [left, top, right, bottom]}`.
    Empty, or no section at all, only for pca, supervised and none, which need no regions.
    """
    min_area: Fraction = 0.0005
    """A mask that covers less of the image is an error of that sample."""
    max_area: Fraction = 0.95
    """A mask that covers more of the image is an error of that sample."""


class Output(Section):
    """What is written, and where."""

    folder: str
    """Local folder or fsspec URL. One folder is one run."""
    layout: Literal["edited", "pairs"] = "edited"
    """edited: a sample is one edited image; pairs: a sample is original, edited, mask and JSON
    together.
    """
    format: Literal["png", "jpeg", "webp"] = "png"
    """Of the edited images."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG and WebP quality; WebP at 100 is lossless; PNG ignores it."""
    vector_dtype: Literal["float16", "float32"] = "float16"
    """How direction vectors are stored."""
    latents: Literal["none", "float32", "float16"] = "none"
    """Store what inverting every image found, for later runs (`invert.latents`). float32: as the
    sampler computed it (float64 for two-state samplers), changes no pixel. float16: half the size,
    rounded before anything is made from it, so part of the fingerprint.
    """


class Execution(Section):
    """How the work is done; nothing here changes a pixel, and command-line flags override it."""

    engine: Literal["local", "ray"] = "local"
    """This process, or actors of a Ray cluster."""
    workers: PositiveInt = 1
    """Processes that hold a model each."""
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    """With the engine ray; 0.5 puts two workers on a card."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where torch sees one."""
    max_attempts: PositiveInt = 3
    """A shard whose worker failed this many times is quarantined."""
    max_error_rate: Fraction = 1.0
    """The run stops early when more than this share of at least 100 samples ended in errors."""
    stall_timeout_s: Annotated[float, Field(gt=0.0)] = 600.0
    """A worker that finishes no image for so long is replaced."""


class RunConfig(Section):
    """A whole run: shards in; edited shards, or a library of directions, and manifests out."""

    pipeline: Literal["edit_dataset", "direction_library", "store_latents"] = "edit_dataset"
    """edit_dataset: find or read directions and edit every image; direction_library: find and
    store directions, edit nothing; store_latents: invert every image up to the top of
    `edit.window` and store that, nothing else.
    """
    input: Input
    model: Model = Model()
    grid: Grid = Grid()
    invert: Invert = Invert()
    segment: Segment
    discover: Discovery = JacobianDiscovery()
    edit: Edit = Edit()
    output: Output
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _no_regions_needed(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        edit = values.get("edit")
        found = edit.get("method") if isinstance(edit, dict) else getattr(edit, "method", None)
        if found == "sdedit" and "discover" not in values:
            values = values | {"discover": NoDiscovery(method="none")}
        if "segment" in values:
            return values
        if values.get("pipeline") == "store_latents":
            return values | {"segment": Segment(regions={})}
        discover = values.get("discover")
        method = discover.get("method") if isinstance(discover, dict) else None
        without = isinstance(discover, DatasetDiscovery | NoDiscovery)
        if without or method in ("pca", "supervised", "none"):
            return values | {"segment": Segment(regions={})}
        return values

    @model_validator(mode="after")
    def _latents_go_one_way(self) -> Self:
        stores = self.output.latents != "none"
        if self.pipeline == "store_latents" and not stores:
            raise ValueError("output.latents: expected float32 or float16 with store_latents")
        if self.invert.latents is not None and stores:
            raise ValueError(
                "output.latents: expected none with invert.latents, which are stored already"
            )
        used = stores or self.invert.latents is not None
        if used and self.pipeline == "edit_dataset" and self.edit.method == "sdedit":
            raise ValueError("edit.method: sdedit inverts nothing; expected no latents with it")
        if self.invert.keep and not stores:
            raise ValueError(
                "invert.keep: is for stored latents; expected output.latents: float32 or float16"
            )
        return self

    @model_validator(mode="after")
    def _method_fits_the_pipeline(self) -> Self:
        method = self.discover.method
        if self.pipeline == "store_latents":
            return self
        if isinstance(self.discover, DatasetDiscovery) and self.pipeline != "direction_library":
            raise ValueError(
                f"discover.method: {method} learns from all images of a run; expected it with"
                " `pipeline: direction_library`; apply what it finds in a run of"
                " `pipeline: edit_dataset` with `method: library`"
            )
        if self.invert.report and self.pipeline == "edit_dataset":
            raise ValueError(
                "invert.report: a run that edits reports every reconstruction in any case; expected"
                " it with `pipeline: direction_library` or `store_latents`"
            )
        if (
            isinstance(self.discover, DatasetDiscovery)
            and self.discover.capture == "inversion"
            and self.invert.latents is not None
        ):
            raise ValueError(
                "discover.capture: inversion takes h from inverting, and with invert.latents"
                " nothing is inverted; expected exact"
            )
        if isinstance(self.discover, LibraryDiscovery) and self.pipeline != "edit_dataset":
            raise ValueError(
                "discover.method: library applies directions and finds none; expected it with"
                " `pipeline: edit_dataset`"
            )
        if isinstance(self.discover, NoDiscovery) and self.pipeline != "edit_dataset":
            raise ValueError(
                "discover.method: none finds nothing to store; expected it with"
                " `pipeline: edit_dataset` and `edit.method: sdedit`"
            )
        if self.pipeline == "edit_dataset":
            if isinstance(self.discover, NoDiscovery) and self.edit.method != "sdedit":
                raise ValueError(
                    "discover.method: none leaves nothing to shift along; expected a method, or"
                    " `edit.method: sdedit`"
                )
            if self.edit.method == "sdedit" and not isinstance(self.discover, NoDiscovery):
                raise ValueError(
                    f"edit.method: sdedit uses no directions; expected `discover.method: none` with"
                    f" it, got {method}"
                )
        return self

    @model_validator(mode="after")
    def _boosted_by_ddim(self) -> Self:
        rule = self.edit.window_rule
        boosted = self.edit.boost_below > 0 or (rule is not None and rule.boost)
        if boosted and self.invert.method != "ddim":
            raise ValueError(
                "edit.boost_below: expected invert.method ddim with it, got"
                f" {self.invert.method}, whose exact way back it would leave"
            )
        return self

    @model_validator(mode="after")
    def _rule_fits_the_inversion(self) -> Self:
        rule = self.edit.window_rule
        if rule is None:
            return self
        if self.output.latents != "none" or self.invert.latents is not None:
            raise ValueError(
                "edit.window_rule: expected none in a run that stores latents or reads them, which"
                " must know the window before; take what another run found, in its window.json"
            )
        if rule.boost and self.edit.boost_below:
            raise ValueError(
                "edit.window_rule: boost sets edit.boost_below; expected one of them, got"
                f" {self.edit.boost_below} too"
            )
        return self

    @model_validator(mode="after")
    def _regions_known(self) -> Self:
        if WHOLE in self.segment.regions:
            raise ValueError(
                f"segment.regions: {WHOLE!r} is the name of the whole image; expected another name"
            )
        method = self.discover.method
        if self.pipeline == "store_latents":
            return self
        without = isinstance(self.discover, DatasetDiscovery | NoDiscovery)
        if not self.segment.regions and not without:
            raise ValueError(f"segment.regions: expected at least one region for method {method}")
        if method in ("jive", "ajive") and len(self.segment.regions) < 2:
            raise ValueError(
                f"segment.regions: expected at least two regions, which {method} compares"
            )
        if isinstance(self.discover, LibraryDiscovery):
            unknown = sorted(set(self.discover.regions) - set(self.segment.regions) - {WHOLE})
            if unknown:
                raise ValueError(
                    f"discover.regions names {unknown}, which segment.regions does not define"
                )
        unknown = sorted(_planned_regions(self.edit.plan) - set(self.segment.regions) - {WHOLE})
        if unknown and self.edit.method == "shift" and self.pipeline == "edit_dataset":
            raise ValueError(
                f"edit.plan: names the regions {unknown}, which segment.regions does not define; it"
                f" defines {sorted(self.segment.regions)}"
            )
        return self


def _planned_regions(plan: EditPlan) -> set[str]:
    parts = [
        part
        for entry in plan.entries
        for part in (entry.combine if isinstance(entry, Combination) else (entry,))
    ]
    return {region for part in parts for region in part.regions}
