"""Where editing may end and boosting may begin, by how much of the image the network sees at each
timestep: the perceptual rule of Asyrp.

Shape suffixes: as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.metrics.perceptual_distance import PerceptualDistance
from lib.problems import ConfigProblem
from lib.sampling.ddim import inversion, predicted_x0
from lib.sampling.grid import Grid


@dataclass(frozen=True, slots=True)
class Seen:
    """Mean distances from the image at one timestep."""

    timestep: int
    predicted: float
    """Of P_t, what the network takes the image to be."""
    noisy: float
    """Of x_t."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """What the rule finds."""

    t_edit: int
    t_boost: int
    """0 where x_t never is so far from the image."""


@torch.no_grad()
def distances(
    denoiser: Denoiser,
    grid: Grid,
    images: Sequence[Tensor],
    distance: PerceptualDistance,
    *,
    last: int,
    batch_size: int,
) -> list[Seen]:
    """At nodes 1 to `last` of the plain DDIM inversion, mean over `images` (C, H, W) in [-1, 1].
    Two evaluations an image and node.
    """
    sums = torch.zeros(last, 2, dtype=torch.float64)
    for start in range(0, len(images), batch_size):
        image_BCHW = torch.stack(list(images[start : start + batch_size])).to(denoiser.device)
        x0_BLYX = denoiser.latent(image_BCHW)
        for node, x_BLYX in inversion(denoiser.predict, grid, x0_BLYX, last=last, refinements=0):
            eps_BLYX = denoiser.predict(x_BLYX, grid.timestep(node))
            p_BLYX = predicted_x0(x_BLYX, eps_BLYX, grid.alphas[node])
            for column, shown_BLYX in enumerate((p_BLYX, x_BLYX)):
                shown_BCHW = denoiser.image(shown_BLYX)
                apart_B = distance.between(image_BCHW, shown_BCHW)
                sums[node - 1, column] += apart_B.double().sum().cpu()
    means = (sums / len(images)).tolist()
    return [Seen(grid.timestep(n + 1), p, x) for n, (p, x) in enumerate(means)]


def cuts(seen: Sequence[Seen], *, edit: float, boost: float) -> Cuts:
    """t_edit is the lowest timestep at which P_t is `edit` away from the image or more, t_boost the
    lowest at which x_t is `boost` away (Kwon et al. 2023, section 3.3).

    Raises:
        ConfigProblem: P_t never is so far away.
    """
    far = [s.timestep for s in seen if s.predicted >= edit]
    if not far:
        raise ConfigProblem(
            f"edit.window_rule: expected a timestep at which P_t is {edit:.3f} from the image or"
            f" more, and up to {max(s.timestep for s in seen)} it is at most"
            f" {max(s.predicted for s in seen):.3f}; expected a higher edit.window, or a lower"
            " edit.window_rule.cosine"
        )
    noisy = [s.timestep for s in seen if s.noisy >= boost]
    return Cuts(min(far), min(noisy, default=0))
