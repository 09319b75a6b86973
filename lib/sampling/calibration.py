"""The model's mean norm of h at every grid timestep: the unit in which strengths are given.

Measured on the model's own samples from seeded noise, so it belongs to the model and the grid
alone and a strength means the same in every run. The first worker of a run stores it in
`model.json`; all read it back.
"""

from __future__ import annotations

import json
from contextlib import suppress

import torch

from lib.denoiser import Denoiser
from lib.files import storage
from lib.problems import ModelProblem
from lib.sampling.ddim import round_trip_error, transfer
from lib.sampling.grid import Grid

_SAMPLES = 4
_SEED = 20_240_601
ROUND_TRIP_LIMIT = 1e-6


@torch.no_grad()
def h_norms(denoiser: Denoiser, grid: Grid) -> dict[int, float]:
    """Mean norm of h over a few DDIM samples, by timestep."""
    generator = torch.Generator().manual_seed(_SEED)
    x_BLYX = torch.randn(_SAMPLES, *denoiser.latent_shape, generator=generator).to(denoiser.device)
    norms = {}
    for node in range(grid.num_steps, 0, -1):
        point = denoiser.encode(x_BLYX, grid.timestep(node))
        norms[grid.timestep(node)] = float(point.h_BCYX.flatten(1).norm(dim=1).mean())
        x_BLYX = transfer(x_BLYX, point.eps_BLYX, grid.alphas[node], grid.alphas[node - 1])
    if not all(0 < n < float("inf") for n in norms.values()):
        raise ModelProblem("the network's bottleneck is not finite on its own samples")
    return norms


def calibrate(url: str, denoiser: Denoiser, grid: Grid, weights_sha256: str) -> dict[int, float]:
    """The norms stored at `url`, measured and stored first if nobody has.

    Raises:
        ModelProblem: the grid does not return the clean image for a constant noise prediction.
    """
    error = round_trip_error(grid)
    if error > ROUND_TRIP_LIMIT:
        raise ModelProblem(
            f"the timestep grid loses {error:.1e} in a constant-noise round trip,"
            f" expected below {ROUND_TRIP_LIMIT:.0e}"
        )
    if not storage.exists(url):
        norms = h_norms(denoiser, grid)
        record = {
            "weights_sha256": weights_sha256,
            "h_shape": list(denoiser.h_shape),
            "constant_eps_round_trip": error,
            "h_norm": {str(t): round(n, 6) for t, n in sorted(norms.items())},
        }
        with suppress(FileExistsError):  # another worker measured the same
            storage.create(url, (json.dumps(record, indent=1) + "\n").encode())
    stored = json.loads(storage.read_bytes(url))
    return {int(t): float(n) for t, n in stored["h_norm"].items()}
