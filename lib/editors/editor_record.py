"""What is known of a learned editor beside its tensors: the row of a library, the header of a file.

No torch here: `plan` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lib.problems import ConfigProblem

DIRECTION, FUNCTION, RECTIFIER, DELTA = "direction", "direction_fn", "rectifier", "model_delta"
TYPES = (DIRECTION, FUNCTION, RECTIFIER, DELTA)
"""A shift of h for every step (Asyrp's free delta h); f_t, a shift that depends on h and t; a
network that modulates the U-Net (Hou et al. 2023); other weights of the U-Net (DiffusionCLIP).
"""

RECONSTRUCTION, EDITING = "reconstruction", "editing"
"""What a rectifier was trained for."""

NETWORK_SPACE = "network"
"""Space of editors that change what the network computes, not h alone."""

EVALUATIONS: Mapping[str, int] = {DIRECTION: 0, FUNCTION: 0, RECTIFIER: 2, DELTA: 1}
"""Network evaluations that an editor adds to a step of an edit, beside the step's own; a pass of
the decoder half counts as one.
"""


@dataclass(frozen=True, slots=True)
class EditorRecord:
    """One learned editor. Everything is plain, so that JSON and Parquet hold it."""

    id: str
    """16 hex digits of a hash of what it does."""
    type: str
    label: str
    """What it was called when it was trained, such as `smile`."""
    region: str
    """Name of the region it is to change; `image` where it is tied to none."""
    purpose: str
    """editing, or reconstruction: rectifiers that make no edit."""
    method: str
    """asyrp, rectifier, diffusionclip or diffusionclip_lora."""
    model: str
    """SHA-256 of the weights it belongs to."""
    h_layer: str
    timesteps: tuple[int, ...]
    """At which it was trained, from the highest down."""
    window: tuple[int, int]
    """Highest and lowest timestep at which it should be applied."""
    h_norms: tuple[float, ...]
    """The model's mean norm of h at each of the timesteps; empty where no h is shifted."""
    lengths: tuple[float, ...]
    """Of a direction: the length of each step at strength 1, in units of h_norms; else empty."""
    unit_strength: float
    """Factor on what was learned that strength 1 means."""
    shape: tuple[int, ...]
    """(S, C, Y, X) of a direction, (C, Y, X) of the h that a function takes; else empty."""
    architecture: Mapping[str, Any]
    """From which the network is built again."""
    parameters: Mapping[str, Any]
    """How it was trained: objective, style, steps, batch, learning rate, seed."""
    data_sha256: str
    """Of the names and contents of the shards it was trained on."""
    images: int
    steps: int
    """Optimizer steps that were taken."""
    losses: Mapping[str, tuple[float, float]]
    """Term -> mean over the first and over the last tenth of the training."""
    fingerprint: str
    """Of the training's config."""
    parents: tuple[str, ...] = ()
    """Ids of what it was trained on top of."""

    @property
    def space(self) -> str:
        """h, or `network`."""
        return "h" if self.type in (DIRECTION, FUNCTION) else NETWORK_SPACE

    @property
    def evaluations(self) -> int:
        """Network evaluations that it adds to a step of an edit."""
        return EVALUATIONS[self.type]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return asdict(self)


def from_json(values: Mapping[str, Any], where: str) -> EditorRecord:
    """The record of plain values; `where` begins the messages.

    Raises:
        ConfigProblem: a value is missing, unknown, or not what it should be.
    """
    names = {field.name for field in fields(EditorRecord)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigProblem(f"{where}: unknown metadata {unknown}; is it of a later release?")
    hints = get_type_hints(EditorRecord)
    try:
        checked = {k: TypeAdapter(hints[k]).validate_python(v) for k, v in values.items()}
        record = EditorRecord(**checked)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigProblem(f"{where}: {first['msg']}, got {first['input']!r:.80}") from error
    except TypeError as error:
        raise ConfigProblem(f"{where}: metadata is missing: {error}") from error
    if record.type not in TYPES:
        raise ConfigProblem(f"{where}: expected a type of {', '.join(TYPES)}, got {record.type!r}")
    return record
