"""The loss of a batch: what the network predicts with the editor, shown to the objective as images,
or compared with the noise that was added.

Shape suffixes: B examples; L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.denoiser import Denoiser
from lib.editors.edited_noise import EditedNoise
from lib.objectives.prediction import Prediction
from lib.objectives.weighted_sum import WeightedSum
from lib.sampling.ddim import predicted_x0
from pipelines.training.batches import Batch

NOISE, FROZEN_NOISE, RELATIVE = "noise", "noise_frozen", "relative"
"""Terms of a rectifier that learns to reconstruct: |z - eps|^2 with it, without, and the mean of
their ratios.
"""
_LEAST = 1e-8


class Losses(NamedTuple):
    """Of a batch."""

    total: Tensor
    """Mean over the examples, with gradient."""
    terms: Mapping[str, Tensor]
    """Unweighted, detached means by name."""
    plain_BLYX: Tensor
    """Noise predictions, detached."""
    edited_BLYX: Tensor


class TrainingLoss(nn.Module):
    """Its parameters are those of the editor."""

    def __init__(
        self,
        noise: nn.Module,
        denoiser: Denoiser,
        objective: WeightedSum | None,
        precision: torch.dtype,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.noise = noise
        self._denoiser = denoiser
        self._objective = objective
        self._precision = precision
        self._relative = relative
        """How a rectifier's reconstruction is weighed."""

    def forward(self, batch: Batch) -> Losses:
        """The loss in float32; the networks' passes in the training's precision."""
        noise: EditedNoise = self.noise
        with torch.autocast(
            batch.x_BLYX.device.type, self._precision, enabled=self._precision != torch.float32
        ):
            noises = noise(batch.x_BLYX, batch.t_B, batch.x0_BLYX)
        plain_BLYX, edited_BLYX = noises.plain_BLYX.float(), noises.edited_BLYX.float()
        if self._objective is None:
            total, terms = self._reconstruction(batch, plain_BLYX, edited_BLYX)
        else:
            found = self._objective(self._prediction(batch, plain_BLYX, edited_BLYX))
            total, terms = found.total_B.mean(), found.means
        return Losses(total, terms, plain_BLYX.detach(), edited_BLYX.detach())

    def _reconstruction(
        self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """E |eps - eps_theta_hat(x_t)|^2 (Hou et al. 2023, reconstruction training), or each
        example's over the frozen network's own: low timesteps, where the error is a hundred times
        as large and no kernel can mend it, do not drown the others then.
        """
        if batch.noise_BLYX is None:
            raise ValueError("a rectifier learns to reconstruct from noised images alone")
        off_B = (batch.noise_BLYX - edited_BLYX).square().flatten(1).mean(1)
        frozen_B = (batch.noise_BLYX - plain_BLYX).square().flatten(1).mean(1)
        relative_B = off_B / frozen_B.clamp_min(_LEAST)
        total = relative_B.mean() if self._relative else off_B.mean()
        terms = {NOISE: off_B, FROZEN_NOISE: frozen_B, RELATIVE: relative_B}
        return total, {name: value_B.detach().mean() for name, value_B in terms.items()}

    def _prediction(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> Prediction:
        """P_t of both (DDIM eq. 9), as images."""
        plain_P_BLYX = predicted_x0(batch.x_BLYX, plain_BLYX, batch.alpha_B111)
        edited_P_BLYX = predicted_x0(batch.x_BLYX, edited_BLYX, batch.alpha_B111)
        with torch.no_grad():
            plain_BCHW = self._denoiser.image(plain_P_BLYX)
        return Prediction(
            edited_BCHW=self._denoiser.image(edited_P_BLYX),
            plain_BCHW=plain_BCHW,
            image_BCHW=batch.image_BCHW,
            target_BCHW=batch.target_BCHW,
        )
