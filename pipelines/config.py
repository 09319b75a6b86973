"""The config of a run: one frozen pydantic tree, read from YAML, refused before work starts if
anything is wrong.

Nothing here imports torch or ray. What changes pixels enters the fingerprint
(`fingerprint_fields`); where things lie and how many workers there are does not.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Timestep = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    """A folder in diffusers format with safetensors weights, or `embedded` for the face model in
    this repository.
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


class Invert(Section):
    """DDIM inversion."""

    refinements: Annotated[int, Field(ge=0, le=10)] = 0
    """Fixed-point refinements of every inversion step; each costs one more network evaluation a
    step.
    """
    batch_size: PositiveInt = 8
    """Images a forward pass; cut by position in the shard, so part of the fingerprint."""


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

    regions: Annotated[dict[Name, MaskFile | Box], Field(min_length=1)]
    """Name to `{file: EXT}`, a side file of the sample, or `{box: [left, top, right, bottom]}`."""
    min_area: Fraction = 0.0005
    """A mask that covers less of the image is an error of that sample."""
    max_area: Fraction = 0.95
    """A mask that covers more of the image is an error of that sample."""


class JacobianDiscovery(Section):
    """Top right singular directions of the region-masked Jacobian of the network in h."""

    method: Literal["jacobian"] = "jacobian"
    timestep: Timestep = 368
    """The nearest grid timestep is used."""
    directions: PositiveInt = 3
    """Directions per region."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """The estimated sine of the angle to the true singular subspace at which iteration stops."""
    max_rounds: PositiveInt = 30
    """Rounds after which a direction is stored as not converged."""
    chunk: PositiveInt = 8
    """Jacobian-vector products in one call: bounds memory."""


class LibraryDiscovery(Section):
    """Directions read from a directions file or folder written by an earlier run."""

    method: Literal["library"]
    path: str
    """A directions Parquet file, or a folder of them."""
    ids: tuple[str, ...] = ()
    """Exactly these direction ids; empty: all that match the rest."""
    regions: tuple[Name, ...] = ()
    """Only directions found for these regions; empty: for every configured region."""
    max_rank: PositiveInt = 1
    """Only the first so many directions of every source image and region."""
    max_directions: PositiveInt = 16
    """At most so many directions, in the order of the file."""


class Edit(Section):
    """How directions are applied."""

    injection: Literal["asymmetric", "symmetric"] = "asymmetric"
    """asymmetric: only the predicted x_0 sees the shifted h (Asyrp); symmetric: both terms of the
    step do.
    """
    window: tuple[Timestep, Timestep] = (900, 300)
    """Highest and lowest timestep at which h is shifted; inversion stops at the highest."""
    strengths: Annotated[tuple[float, ...], Field(min_length=1)] = (-0.1, 0.1)
    """In units of the model's mean norm of h; the effect does not depend on the number of steps."""
    batch_size: PositiveInt = 16
    """Edits of one image decoded together."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.window[0] < self.window[1]:
            raise ValueError(
                "expected window as [highest, lowest] timestep, the first not below the second"
            )
        if len(set(self.strengths)) != len(self.strengths) or 0.0 in self.strengths:
            raise ValueError(
                "expected distinct strengths, none of them 0 (the reconstruction is always made)"
            )
        return self


class Output(Section):
    """What is written, and where."""

    folder: str
    """Local folder or fsspec URL. One folder is one run."""
    layout: Literal["edited", "pairs"] = "edited"
    """edited: a sample is one edited image; pairs: a sample is original, edited, mask and JSON
    together.
    """
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG and WebP quality; WebP at 100 is lossless; PNG ignores it."""
    vector_dtype: Literal["float16", "float32"] = "float16"
    """How direction vectors are stored."""


class Execution(Section):
    """How the work is done; nothing here changes a pixel, and command-line flags override it."""

    engine: Literal["local", "ray"] = "local"
    workers: PositiveInt = 1
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_attempts: PositiveInt = 3
    """A shard whose worker failed this many times is quarantined."""
    max_error_rate: Fraction = 1.0
    """The run stops early when more than this share of at least 100 samples ended in errors."""
    stall_timeout_s: Annotated[float, Field(gt=0.0)] = 600.0
    """A worker that finishes no image for so long is replaced."""


class RunConfig(Section):
    """A whole run: shards in, edited shards and manifests out."""

    input: Input
    model: Model = Model()
    grid: Grid = Grid()
    invert: Invert = Invert()
    segment: Segment
    discover: Annotated[JacobianDiscovery | LibraryDiscovery, Field(discriminator="method")] = (
        JacobianDiscovery()
    )
    edit: Edit = Edit()
    output: Output
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _library_regions_known(self) -> Self:
        if isinstance(self.discover, LibraryDiscovery):
            unknown = sorted(set(self.discover.regions) - set(self.segment.regions))
            if unknown:
                raise ValueError(
                    f"discover.regions names {unknown}, which segment.regions does not define"
                )
        return self
