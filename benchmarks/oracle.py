"""The truth that Jacobian methods are measured against: every row of every region's Jacobian in
float64, and its whole SVD.

It shares nothing with the engine: the network runs whole, a plain forward hook puts h in, and rows
come one by one from reverse mode. Kept in the cache folder, since it takes minutes.

Shape suffixes: R regions, N entries of the image, M those of one region, D of h, K directions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.scenes import Scene

KEPT = 20
"""Right singular vectors kept of each region."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Exact:
    """The SVD of one region's rows, float64."""

    S_M: Tensor
    """All singular values, falling."""
    V_KD: Tensor
    """The first KEPT right singular vectors."""


def oracle(scene: Scene, cache: Path) -> tuple[Exact, ...]:
    """The exact SVD of every region of `scene`; read from `cache` where it is known."""
    path = cache / f"oracle-{scene.name}-{scene.key}-{_VERSION}.safetensors"
    if not path.is_file():
        rows = jacobian_rows(scene)
        parts: dict[str, Tensor] = {}
        for index, J_MD in enumerate(rows):
            exact = exact_svd(J_MD)
            parts |= {f"S{index}": exact.S_M, f"V{index}": exact.V_KD}
        cache.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        save_file(parts, half)
        half.replace(path)
    parts = load_file(path)
    return tuple(Exact(parts[f"S{r}"], parts[f"V{r}"]) for r in range(len(scene.masks_RN)))


def exact_svd(J_MD: Tensor) -> Exact:
    """By LAPACK, of a float64 matrix with its zero rows left out."""
    svd = torch.linalg.svd(J_MD, full_matrices=False)
    return Exact(svd.S.contiguous(), svd.Vh[:KEPT].contiguous())


def jacobian_rows(scene: Scene) -> list[Tensor]:
    """d P_t / d h of every region, rows (M, D) float64, by reverse mode through the whole network.

    Attention runs in its plain mathematical form: the fused kernels fall back to float32.
    """
    unet = copy.deepcopy(scene.unet).double()
    taps: list[Tensor] = []

    def put(_module: Any, _args: Any, h_BCYX: Tensor) -> Tensor:
        taps.append(h_BCYX.detach().clone().requires_grad_())
        return taps[0]

    handle = unet.mid_block.register_forward_hook(put)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            out_N = unet(scene.x_BLYX.double(), scene.t).sample.flatten()
            return [_rows(out_N, taps[0], mask_N) * scene.scale for mask_N in scene.masks_RN]
    finally:
        handle.remove()


def _rows(out_N: Tensor, h_BCYX: Tensor, mask_N: Tensor) -> Tensor:
    # One at a time: in float64 a batched backward pass is the slower one.
    entries_M = mask_N.nonzero()[:, 0]
    J_MD = torch.empty(len(entries_M), h_BCYX.numel(), dtype=torch.float64)
    for row_D, entry in zip(J_MD, entries_M, strict=True):
        (grad_BCYX,) = torch.autograd.grad(out_N[entry], h_BCYX, retain_graph=True)
        row_D.copy_(grad_BCYX.flatten())
    return J_MD


def true_angle(V_KD: Tensor, exact: Exact) -> float:
    """Sine of the largest principal angle between the span of V and the exact one of its rank."""
    if not len(V_KD):
        return 1.0
    truth_KD = exact.V_KD[: len(V_KD)]
    found_KD = torch.linalg.qr(V_KD.double().T)[0].T
    return float(torch.linalg.matrix_norm(found_KD - found_KD @ truth_KD.T @ truth_KD, 2))


def value_error(S_K: Tensor, exact: Exact) -> float:
    """Largest relative error of the singular values."""
    truth_K = exact.S_M[: len(S_K)]
    return float(((S_K.double() - truth_K) / truth_K).abs().max())


def spectrum_line(names: Sequence[str], exact: Sequence[Exact], count: int) -> str:
    """Rank and gap of every region: how hard the task is."""
    return ", ".join(
        f"{name} {len(e.S_M)} rows s{count}/s1 {e.S_M[count - 1] / e.S_M[0]:.2f}"
        f" s{count + 1}/s{count} {e.S_M[count] / e.S_M[count - 1]:.3f}"
        for name, e in zip(names, exact, strict=True)
    )
