"""The config of a run: one frozen pydantic tree, read from YAML, refused before work starts if
anything is wrong.

Nothing here imports torch or ray. What changes pixels enters the fingerprint
(`fingerprint_fields`); where things lie and how many workers there are does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.config_agreement import check_agreement
from pipelines.config_section import Fraction, PositiveInt, Section
from pipelines.discovery_config import (
    Discovery,
    JacobianDiscovery,
    NoDiscovery,
)
from pipelines.edit_config import Edit
from pipelines.evaluate_config import Evaluate
from pipelines.inversion_config import Invert
from pipelines.learned_config import Learned
from pipelines.region_model_config import RegionFit
from pipelines.segment_config import Segment
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
    rectifier: str | None = None
    """A rectifier trained to reconstruct (`deltah train`): the folder of its training or its file.
    Every image is inverted, decoded, edited and renoised with kernels modulated for it (Hou et
    al.).
    """


class Grid(Section):
    """The one timestep grid that inversion and decoding share."""

    num_steps: Annotated[int, Field(ge=2, le=1000)] = 50
    """Network evaluations of a plain decode from the last timestep."""
    spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    """Where the timesteps lie, in the names of diffusers. linspace and leading begin at 0 and
    reconstruct better on few steps; linspace and trailing reach the last one.
    """


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
    drain_timeout_s: Annotated[float, Field(ge=0.0)] | None = None
    """After a first SIGTERM or Ctrl-C shards in flight are finished; those that take longer than
    this are left to the next run. Without it, they are finished however long it takes.
    """
    duplicate_stragglers: bool = True
    """When nothing is left to begin, idle workers take shards that lag behind a second time; the
    first to commit wins.
    """


class RunConfig(Section):
    """A whole run: shards in; edited shards, or a library of directions, and manifests out."""

    pipeline: Literal["edit_dataset", "direction_library", "store_latents", "region_model"] = (
        "edit_dataset"
    )
    """edit_dataset: find or read directions and edit every image; direction_library: find and
    store directions, edit nothing; store_latents: invert every image up to the top of
    `edit.window` and store that, nothing else; region_model: learn regions from all images.
    """
    input: Input
    model: Model = Model()
    grid: Grid = Grid()
    invert: Invert = Invert()
    segment: Segment
    region_model: RegionFit = RegionFit()
    discover: Discovery = JacobianDiscovery()
    learned: Learned | None = None
    """Learned editors that are applied beside what is discovered: `{path: embedded, labels:
    [smile]}`; with `discover: {method: none}` they alone.
    """
    edit: Edit = Edit()
    evaluate: Evaluate = Evaluate()
    output: Output
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _no_regions_needed(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        edit = values.get("edit")
        found = edit.get("method") if isinstance(edit, dict) else getattr(edit, "method", None)
        if found == "sdedit" and "discover" not in values and not values.get("learned"):
            values = values | {"discover": NoDiscovery(method="none")}
        if "segment" in values:
            return values
        if values.get("pipeline") in ("store_latents", "region_model"):
            return values | {"segment": Segment(regions={})}
        discover = values.get("discover")
        method = discover.get("method") if isinstance(discover, dict) else None
        without = isinstance(discover, DatasetDiscovery | NoDiscovery)
        if without or method in ("pca", "supervised", "none"):
            return values | {"segment": Segment(regions={})}
        return values

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        check_agreement(self)
        return self
