"""The same kernels every time: full float32 and no autotuning, so that a run's bytes repeat."""

from __future__ import annotations

import torch


def settle(cpu_threads: int) -> None:
    """Fix this process's thread count and, on a GPU, choose deterministic float32 kernels.

    TF32 keeps ten bits of mantissa, too few for exact inversion and for Jacobian products.
    """
    torch.set_num_threads(cpu_threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
