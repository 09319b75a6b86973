"""From the section `editor` to the module that is trained, and from the trained module to the
tensors that are kept.

Shape suffixes: S steps, C, Y, X of h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.editors.delta_block import DeltaBlock
from lib.editors.edited_noise import RectifiedNoise, ShiftedNoise, TunedNoise
from lib.editors.editor_files import find_editor
from lib.editors.editor_record import DELTA, DIRECTION, FUNCTION, RECTIFIER
from lib.editors.loading import rebuilt_rectifier
from lib.editors.step_shifts import StepShifts
from lib.editors.tuned_network import Tuning, tunable_copy, tuned_weights
from lib.models.time_embedding import load_time_embedding
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from pipelines.training.config import TrainConfig
from pipelines.training.editor_config import (
    FineTuneEditor,
    FunctionEditor,
    LoraEditor,
    RectifierEditor,
    StepShiftsEditor,
)
from pipelines.training.engine import TrainingEngine


@dataclass(frozen=True, slots=True)
class Built:
    """An editor about to be trained."""

    type: str
    method: str
    noise: nn.Module
    """A `lib.editors.edited_noise.EditedNoise`."""
    editor: nn.Module
    """Whose parameters are trained."""
    architecture: Mapping[str, Any]
    tensors: Callable[[], dict[str, Tensor]]
    """What an artifact keeps."""
    h_norms: tuple[float, ...] = ()
    parents: tuple[str, ...] = ()
    asymmetric: bool = False
    """Whether edits show it to the predicted x_0 alone."""


def build_editor(config: TrainConfig, engine: TrainingEngine) -> Built:
    """With weights drawn from the training's seed.

    Raises:
        ConfigProblem: the editor does not fit the model, or what it starts from cannot be read.
    """
    torch.manual_seed(config.training.seed)
    match config.editor:
        case StepShiftsEditor():
            return _step_shifts(engine)
        case FunctionEditor(ignores_time=ignores_time):
            return _function(engine, ignores_time=ignores_time)
        case RectifierEditor() as editor:
            return _rectifier(editor, engine)
        case FineTuneEditor():
            return _tuned(engine, Tuning("whole"), "diffusionclip")
        case LoraEditor() as editor:
            tuning = Tuning("lora", editor.rank, editor.scale, editor.layers, editor.dropout)
            return _tuned(engine, tuning, "diffusionclip_lora")
        case _:
            raise ConfigProblem(f"editor.kind: {config.editor.kind} is no kind of editor")


def _step_shifts(engine: TrainingEngine) -> Built:
    norms = engine.h_norms()
    own = tuple(norms[t] for t in engine.timesteps)
    shifts = StepShifts(engine.timesteps, own, engine.denoiser.h_shape).to(engine.denoiser.device)
    return Built(
        type=DIRECTION,
        method="asyrp",
        noise=ShiftedNoise(engine.denoiser, shifts),
        editor=shifts,
        architecture={},
        tensors=lambda: {"delta_h": shifts.delta_SCYX.detach()},
        h_norms=own,
        asymmetric=True,
    )


def _function(engine: TrainingEngine, *, ignores_time: bool) -> Built:
    time = load_time_embedding(engine.checkpoint)
    block = DeltaBlock(engine.denoiser.h_shape[0], time, ignores_time=ignores_time)
    block = block.to(engine.denoiser.device)
    norms = engine.h_norms()
    return Built(
        type=FUNCTION,
        method="asyrp",
        noise=ShiftedNoise(engine.denoiser, block),
        editor=block,
        architecture={"ignores_time": ignores_time},
        tensors=lambda: {name: p.detach() for name, p in block.named_parameters()},
        h_norms=tuple(norms[t] for t in engine.timesteps),
        asymmetric=True,
    )


def _rectifier(editor: RectifierEditor, engine: TrainingEngine) -> Built:
    denoiser = unet_denoiser(engine, editor.kind)
    parents: tuple[str, ...] = ()
    if editor.start is None:
        options = RectifierOptions(
            encoder=editor.encoder,
            width=editor.width,
            depths=editor.depths,
            branch_width=editor.branch_width,
        )
        rectifier = Rectifier(denoiser, options)
    else:
        record, tensors = find_editor(editor.start, RECTIFIER, engine.model, "editor.start")
        rectifier = rebuilt_rectifier(record, tensors, denoiser)
        options, parents = rectifier.options, (record.id,)
    rectifier = rectifier.to(denoiser.device)
    return Built(
        type=RECTIFIER,
        method="rectifier",
        noise=RectifiedNoise(denoiser, rectifier),
        editor=rectifier,
        architecture=options.to_json(),
        tensors=lambda: {n: v.detach() for n, v in rectifier.state_dict().items()},
        parents=parents,
    )


def _tuned(engine: TrainingEngine, tuning: Tuning, method: str) -> Built:
    denoiser = unet_denoiser(engine, method)
    frozen = denoiser.network
    network = tunable_copy(frozen, tuning)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    tuned = denoiser.with_network(network)  # which freezes it
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    return Built(
        type=DELTA,
        method=method,
        noise=TunedNoise(denoiser, tuned, network),
        editor=network,
        architecture=tuning.to_json(),
        tensors=lambda: tuned_weights(network, frozen, tuning),
    )


def unet_denoiser(engine: TrainingEngine, kind: str) -> UNetDenoiser:
    """The denoiser, where it is one U-Net."""
    if isinstance(engine.denoiser, UNetDenoiser):
        return engine.denoiser
    raise ConfigProblem(f"editor.kind: {kind} needs a model without guidance")
