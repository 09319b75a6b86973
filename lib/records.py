"""What flows through a pipeline: frozen records, each containing its predecessor.

`Sample -> Inverted -> Segmented -> Discovered -> Edited -> Evaluated`; `Sample -> Edited` where
nothing is inverted (SDEdit); and where something is learned from all images
`Sample -> Inverted -> Observed -> Labelled`. A field is never None "until later", so a stage that
is called in the wrong order is a type error. Tensors stay in the process; between processes go only
`ShardTask` and `ShardReport`.

Shape suffixes: C channels, H height, W width of the image; L latent channels, Y, X latent height
and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan

from torch import Tensor

from lib.direction import Direction
from lib.editors.learned_editor import LearnedEditor
from lib.files.images import Geometry
from lib.receipts import Failure
from lib.sampling.sampler import Latent
from lib.shift import Shift

__all__ = [
    "Discovered",
    "Edit",
    "Edited",
    "Evaluated",
    "Failure",
    "Featured",
    "Inverted",
    "Labelled",
    "Observed",
    "Region",
    "Renoised",
    "Sample",
    "Score",
    "Segmented",
]


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded image with the raw side files that later stages read."""

    shard: str
    index: int
    key: str
    image_CHW: Tensor
    """float32 in [-1, 1], CPU, already at the model's size."""
    geometry: Geometry
    files: Mapping[str, bytes]
    seed: int
    """hash(fingerprint of what shapes pixels, shard, index): every random number of this sample
    comes from it.
    """


@dataclass(frozen=True, slots=True)
class Featured:
    """A sample with the network's features at some of its pixels."""

    sample: Sample
    points_PD: Tensor
    """float32, CPU: P pixels, D entries of all maps (`lib.masks.features`)."""


@dataclass(frozen=True, slots=True)
class Inverted:
    """A sample with its deterministic latents, from the clean side up to the edit timestep only."""

    sample: Sample
    latent: Latent
    """At the edit timestep (the highest grid timestep inside the window)."""
    states_LYX: Mapping[int, Tensor]
    """x_t at the timesteps that discovery asks for, by timestep."""
    h_CYX: Mapping[int, Tensor] = field(default_factory=dict)
    """h as the network had it on the way up, by timestep, where that was asked for; float32, CPU.
    """
    psnr: float = nan
    """Of the unedited reconstruction, dB, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Region:
    """A named part of the image."""

    name: str
    mask_HW: Tensor
    """float32 coverage in [0, 1], CPU, image size."""
    mask_sha256: str


@dataclass(frozen=True, slots=True)
class Segmented:
    """An inverted sample with its regions, in the order of the config."""

    inverted: Inverted
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Discovered:
    """A segmented sample with the directions that the edit stage may use, found here or read from
    a library.
    """

    segmented: Segmented
    directions: tuple[Direction, ...]
    own: bool
    """True when the directions were found in this image and must be stored with this shard."""
    evaluations: int = 0
    """Network evaluations that finding them took beside products of the Jacobian."""
    editors: tuple[Direction | LearnedEditor, ...] = ()
    """Learned ones, the same for every sample."""

    @property
    def applicable(self) -> tuple[Direction | LearnedEditor, ...]:
        """What edits are made of, in the order in which plans count: learned editors first."""
        return (*self.editors, *self.directions)


@dataclass(frozen=True, slots=True)
class Renoised:
    """An edit without a direction: noise added up to a timestep, then taken away (SDEdit)."""

    timestep: int
    """Of the grid."""
    level: float
    """Standard deviation of the noise in x_t, sqrt(1 - alpha_bar)."""
    noise: int
    """Which of the image's noises, from 0."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edited image."""

    region: Region
    """What it means to change: its directions' regions, united."""
    shift: Shift | Renoised
    image_CHW: Tensor
    """uint8, CPU."""


@dataclass(frozen=True, slots=True)
class Edited:
    """All edits of one sample."""

    origin: Discovered | Sample
    """What was edited; a sample itself where nothing was inverted."""
    reconstruction_CHW: Tensor
    """uint8, CPU: the unedited decode of the same latent."""
    network_evaluations: float
    """U-Net evaluations spent on decoding this sample, a decoder-only pass counted as a whole one.
    """
    edits: tuple[Edit, ...] = field(default=())

    @property
    def sample(self) -> Sample:
        """The sample at the bottom of the chain."""
        if isinstance(self.origin, Sample):
            return self.origin
        return self.origin.segmented.inverted.sample

    @property
    def found(self) -> tuple[Direction, ...]:
        """Directions that were found in this image and must be stored with its shard."""
        if isinstance(self.origin, Sample) or not self.origin.own:
            return ()
        return self.origin.directions


@dataclass(frozen=True, slots=True)
class Score:
    """One edit with what was measured of it."""

    position: int
    """Of the edit among all that were made of its sample, from 0."""
    edit: Edit
    metrics: Mapping[str, float | None]
    """Column (`lib.metrics.columns`) -> value; None where it was not asked for."""
    filtered: str | None
    """The first rule that the edit breaks, None if it passes."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An edited sample with the edits that are to be written, at least one."""

    edited: Edited
    scores: tuple[Score, ...]
    network_evaluations: float
    """Spent on decoding and on evaluating this sample."""

    @property
    def sample(self) -> Sample:
        """The sample at the bottom of the chain."""
        return self.edited.sample


@dataclass(frozen=True, slots=True)
class Observed:
    """An inverted sample with its h."""

    inverted: Inverted
    h_SCYX: Tensor
    """h at the S wanted timesteps, in their order, float32, CPU."""

    @property
    def sample(self) -> Sample:
        """The sample at the bottom of the chain."""
        return self.inverted.sample


@dataclass(frozen=True, slots=True)
class Labelled:
    """An observed sample with its labels."""

    observed: Observed
    scores: Mapping[str, float]
    """Label -> score; NaN where this sample does not have the label."""

    @property
    def sample(self) -> Sample:
        """The sample at the bottom of the chain."""
        return self.observed.sample
