"""The time embedding of a `UNet2DModel` checkpoint alone: networks that were trained beside a U-Net
(Asyrp's f_t) take it as input.

Ho et al.'s U-Net is flip_sin_to_cos false, freq_shift 1 in diffusers' terms; the U-Net of improved
and guided diffusion is true, 0. The dense layers are the same two.

Shape suffixes: B timesteps, F sinusoids, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lib.models.checkpoint import Checkpoint
from lib.problems import ModelProblem

_NAMES = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")


@dataclass(frozen=True, slots=True)
class TimeEmbedding:
    """Sinusoids of t, then linear, SiLU, linear; float32 on the CPU."""

    flip_sin_to_cos: bool
    freq_shift: float
    first_EF: Tensor
    first_E: Tensor
    second_EE: Tensor
    second_E: Tensor

    @property
    def width(self) -> int:
        """Entries of the embedding."""
        return len(self.second_E)

    def at(self, t: int | Tensor) -> Tensor:
        """The embedding of timestep t, (1, E), or of timesteps (B,), (B, E): what the U-Net's
        blocks get.
        """
        sinusoids_BF = get_timestep_embedding(
            torch.tensor([t]) if isinstance(t, int) else t.cpu(),
            self.first_EF.shape[1],
            flip_sin_to_cos=self.flip_sin_to_cos,
            downscale_freq_shift=self.freq_shift,
        )
        hidden_BE = torch.nn.functional.linear(sinusoids_BF, self.first_EF, self.first_E)
        return torch.nn.functional.linear(
            torch.nn.functional.silu(hidden_BE), self.second_EE, self.second_E
        )


def load_time_embedding(checkpoint: Checkpoint) -> TimeEmbedding:
    """Read from the checkpoint's weights; the rest of the network is not loaded.

    Raises:
        ModelProblem: the network embeds time in another way, or the file is damaged.
    """
    config = checkpoint.unet.config
    kind = config.get("time_embedding_type", "positional")
    classes = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind != "positional" or classes != (None, None):
        raise ModelProblem(
            f"{checkpoint.folder}: expected a positional time embedding without classes, got"
            f" {kind!r} and {classes}"
        )
    try:
        tensors = [_tensor(checkpoint, f"time_embedding.{name}") for name in _NAMES]
    except (SafetensorError, OSError) as error:
        raise ModelProblem(
            f"{checkpoint.unet.folder}: expected the weights of a time embedding, got: {error}"
        ) from error
    return TimeEmbedding(
        bool(config.get("flip_sin_to_cos", True)), float(config.get("freq_shift", 0)), *tensors
    )


def _tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """One tensor of the U-Net's files, float32."""
    for path in checkpoint.unet.weights:
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118, no mapping
                tensor: Tensor = file.get_tensor(name).float()
                return tensor
    raise SafetensorError(f"no tensor {name}")
