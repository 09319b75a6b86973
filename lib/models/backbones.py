"""Loading a checkpoint into a denoiser: safetensors only, memory-mapped, checked against configs.

Pixel diffusion, latent diffusion and Stable Diffusion differ in what is around the U-Net, which is
split at h in the same way in all of them.
"""

from __future__ import annotations

import re
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lib.denoiser import Denoiser
from lib.models.autoencoder import PIXELS, ImageSpace, LatentSpace
from lib.models.checkpoint import Checkpoint
from lib.models.conditioning import UNCONDITIONED, Conditioning, check_conditioning
from lib.models.guidance import GuidedDenoiser
from lib.models.model_parts import Part
from lib.models.text_encoder import prompt_embeddings
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ModelProblem
from lib.sampling.grid import training_alphas

_FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of an attention's layers before diffusers 0.13, in most files of that age."""
_FORMER_NAME = re.compile(rf"(.*)\.({'|'.join(_FORMER_NAMES)})\.(weight|bias)")


def load_denoiser(
    checkpoint: Checkpoint,
    device: torch.device,
    h_layer: str,
    conditioning: Conditioning = UNCONDITIONED,
) -> Denoiser:
    """The networks in float32 on `device`, frozen.

    Raises:
        ModelProblem: weights are of another shape than the config says, not finite, or the
            architecture cannot be split.
        ConfigProblem: the checkpoint cannot be conditioned so.
    """
    check_conditioning(checkpoint, conditioning)
    alphas_T = [float(a) for a in training_alphas(checkpoint.scheduler_config)]
    prediction_type = str(checkpoint.scheduler_config.get("prediction_type", "epsilon"))
    space: ImageSpace = PIXELS
    if checkpoint.autoencoder is not None:
        part = checkpoint.autoencoder
        space = LatentSpace(load_network(part).to(device), part.config)
    unet = load_network(checkpoint.unet).to(device)

    def denoiser(prompt_1ME: Tensor | None) -> UNetDenoiser:
        return UNetDenoiser(
            unet, alphas_T, prediction_type, h_layer, space=space, prompt_1ME=prompt_1ME
        )

    if checkpoint.text is None:
        return denoiser(None)
    prompts = [conditioning.prompt, conditioning.negative_prompt][: conditioning.passes]
    branches = [denoiser(e.to(device)) for e in prompt_embeddings(checkpoint.text, prompts)]
    if len(branches) == 1:
        return branches[0]
    return GuidedDenoiser(branches[0], branches[1], conditioning.guidance_scale)


def load_network(part: Part) -> Any:
    """A network of diffusers with its weights in float32, on the CPU; tensors that are float32 in
    the file stay memory-mapped, so that the processes of a node share them.

    Raises:
        ModelProblem: the weights do not fit the config or are not finite.
    """
    weights: dict[str, Tensor] = {}
    for file in part.weights:
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ModelProblem(
                f"{file}: expected a whole safetensors file, got: {error}"
            ) from error
    where = part.weights[0] if len(part.weights) == 1 else part.folder
    try:
        with torch.device("meta"):
            network = getattr(diffusers, part.class_name).from_config(dict(part.config))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelProblem(
            f"{part.folder / 'config.json'}: diffusers cannot build this {part.class_name}:"
            f" {' '.join(str(error).split()[:40])}"
        ) from error
    expected = set(network.state_dict())
    named = {_current_name(name, expected): v.float() for name, v in weights.items()}
    try:
        network.load_state_dict(named, assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split()[:60])
        raise ModelProblem(
            f"{where}: the weights do not fit the architecture of config.json: {first}"
        ) from error
    if any(tensor.is_meta for tensor in network.buffers()):
        raise ModelProblem(
            f"{part.folder}: {part.class_name} has constants that are not in its weights; expected"
            " an architecture without"
        )
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise ModelProblem(f"{where}: expected finite weights, found NaN or infinity")
    return network


def _current_name(name: str, expected: set[str]) -> str:
    """The name of a weight in today's diffusers."""
    found = _FORMER_NAME.fullmatch(name)
    if name in expected or found is None:
        return name
    path, layer, kind = found.groups()
    return f"{path}.{_FORMER_NAMES[layer]}.{kind}"
