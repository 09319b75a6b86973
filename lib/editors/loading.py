"""From the file of a learned editor to what a run applies: a direction, or a network around the
loaded model.

Shape suffixes: S steps; B rows; C, Y, X of h; in x also L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lib.denoiser import Denoiser
from lib.direction import Direction, stored
from lib.editors.delta_block import delta_h
from lib.editors.editor_record import (
    DELTA,
    DIRECTION,
    EVALUATIONS,
    FUNCTION,
    RECTIFIER,
    EditorRecord,
)
from lib.editors.learned_editor import LearnedEditor
from lib.editors.tuned_network import Tuning, with_weights
from lib.models.checkpoint import Checkpoint
from lib.models.time_embedding import TimeEmbedding, load_time_embedding
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from lib.rectifier.rectified import RectifiedDenoiser

LEARNED = "learned"
"""Sign rule of a learned direction: + is what it was trained for."""
_SHORTEST = 1e-12


def load_editor(
    record: EditorRecord,
    tensors: Mapping[str, Tensor],
    rank: int,
    denoiser: Denoiser,
    checkpoint: Checkpoint,
) -> Direction | LearnedEditor:
    """Ready on the denoiser's device.

    Raises:
        ConfigProblem: the tensors are not those of the record, or do not fit the model.
    """
    if record.type == DIRECTION:
        return learned_direction(record, tensors["delta_h"], rank)
    if record.type == FUNCTION:
        function = _Function(
            {name: value.float().to(denoiser.device) for name, value in tensors.items()},
            None if record.architecture["ignores_time"] else load_time_embedding(checkpoint),
        )
        return LearnedEditor(record, rank, function, None)
    if not isinstance(denoiser, UNetDenoiser):
        raise ConfigProblem(
            f"learned: {record.label} ({record.type}) changes the network itself, which needs a"
            " model without guidance; expected model.guidance_scale: 1"
        )
    if record.type == DELTA:
        network = with_weights(
            denoiser.network, Tuning(**record.architecture), tensors, f"editor {record.id}"
        )
        return LearnedEditor(record, rank, None, _Tuned(denoiser.with_network(network)))
    rectifier = rebuilt_rectifier(record, tensors, denoiser).to(denoiser.device)
    return LearnedEditor(record, rank, None, _Rectified(denoiser, rectifier))


def learned_direction(record: EditorRecord, delta_SCYX: Tensor, rank: int) -> Direction:
    """A free delta h as a direction whose steps keep their lengths; a step that no training step
    has reached has length 0, and a unit vector that means nothing.

    Raises:
        ConfigProblem: all of it is zero, or the shape is not that of the record.
    """
    if tuple(delta_SCYX.shape) != record.shape:
        raise ConfigProblem(
            f"editor {record.id}: expected delta h {record.shape}, got {tuple(delta_SCYX.shape)}"
        )
    float_SCYX = delta_SCYX.float().clone()
    norm_S = float_SCYX.flatten(1).norm(dim=1)
    reached_S = norm_S > _SHORTEST
    if not bool(reached_S.any()):
        raise ConfigProblem(f"editor {record.id}: delta h is zero; train it longer")
    float_SCYX[~reached_S] = 1.0
    unit_SCYX = stored(float_SCYX, "float32")
    steps = record.timesteps
    return Direction(
        vector_SCYX=unit_SCYX,
        id=record.id,
        space="h",
        h_layer=record.h_layer,
        model=record.model,
        timesteps=steps,
        method=record.method,
        parameters=dict(record.parameters),
        region=record.region,
        mask_sha256="",
        shard=None,
        index=None,
        key=None,
        rank=rank,
        singular_value=record.lengths[0],
        gap=None,
        residual=None,
        angle=None,
        converged=True,
        jvp_count=0,
        vjp_count=0,
        sign_rule=LEARNED,
        h_norm=record.h_norms[0],
        label=record.label,
        window=record.window,
        support=record.images,
        unit_strength=record.unit_strength,
        lengths=record.lengths,
    )


def rebuilt_rectifier(
    record: EditorRecord, tensors: Mapping[str, Tensor], denoiser: UNetDenoiser
) -> Rectifier:
    """With the weights of an artifact; trainable.

    Raises:
        ConfigProblem: they do not fit this network.
    """
    rectifier = Rectifier(denoiser, RectifierOptions.from_json(record.architecture))
    try:
        rectifier.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise ConfigProblem(f"editor {record.id}: the rectifier does not fit: {error}") from error
    return rectifier


@dataclass(frozen=True, slots=True)
class _Function:
    """f_t."""

    weights: Mapping[str, Tensor]
    time: TimeEmbedding | None

    def __call__(self, h_BCYX: Tensor, t: int) -> Tensor:
        temb_1E = None if self.time is None else self.time.at(t).to(h_BCYX)
        return delta_h(self.weights, h_BCYX, temb_1E)


@dataclass(frozen=True, slots=True)
class _Tuned:
    """Other weights."""

    denoiser: UNetDenoiser
    evaluations: int = EVALUATIONS[DELTA]

    def noise(self, x_BLYX: Tensor, t: int, x0_LYX: Tensor) -> Tensor:
        return self.denoiser.predict(x_BLYX, t)


@dataclass(frozen=True, slots=True)
class _Rectified:
    """Kernels modulated for each image."""

    denoiser: UNetDenoiser
    rectifier: Rectifier
    evaluations: int = EVALUATIONS[RECTIFIER]

    def noise(self, x_BLYX: Tensor, t: int, x0_LYX: Tensor) -> Tensor:
        return RectifiedDenoiser(self.denoiser, self.rectifier, x0_LYX).predict(x_BLYX, t)
