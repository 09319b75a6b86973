"""Loading a `UNet2DModel` checkpoint into a denoiser: safetensors only, memory-mapped, checked
against its config.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from lib.checkpoint import Checkpoint
from lib.grid import training_alphas
from lib.problems import ModelProblem
from lib.unet2d_denoiser import UNet2DDenoiser


def load_denoiser(checkpoint: Checkpoint, device: torch.device, h_layer: str) -> UNet2DDenoiser:
    """The network in float32 on `device`, frozen.

    Raises:
        ModelProblem: the weights are truncated, of another shape than the config says, not finite,
            or the architecture cannot be split.
    """
    config = checkpoint.unet_config
    where = checkpoint.weights
    if any("Skip" in name for name in config.get("down_block_types", ())):
        raise ModelProblem(
            f"{checkpoint.folder}: score-SDE `Skip` blocks carry a second image stream past h,"
            " so the network has no single bottleneck to shift"
        )
    if config.get("in_channels") != config.get("out_channels") or config.get("in_channels") != 3:
        raise ModelProblem(
            f"{checkpoint.folder}: expected 3 input and 3 output channels (RGB noise prediction),"
            f" got {config.get('in_channels')} and {config.get('out_channels')}"
        )
    with torch.device("meta"):
        unet = UNet2DModel.from_config(dict(config))
    try:
        weights = load_file(where)
    except (SafetensorError, OSError) as error:
        raise ModelProblem(f"{where}: expected a whole safetensors file, got: {error}") from error
    try:
        unet.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split()[:60])
        raise ModelProblem(
            f"{where}: the weights do not fit the architecture of config.json: {first}"
        ) from error
    if not all(bool(torch.isfinite(p).all()) for p in unet.parameters()):
        raise ModelProblem(f"{where}: expected finite weights, found NaN or infinity")
    prediction_type = str(checkpoint.scheduler_config.get("prediction_type", "epsilon"))
    alphas_T = [float(a) for a in training_alphas(checkpoint.scheduler_config)]
    return UNet2DDenoiser(unet.to(device), alphas_T, prediction_type, h_layer)
