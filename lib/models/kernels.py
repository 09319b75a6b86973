"""What concerns this process's device as a whole. The same kernels every time: full float32 and no
autotuning, so that a run's bytes repeat.
"""

from __future__ import annotations

import gc

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


def synchronise() -> None:
    """Wait until a GPU has done all that it was given: only then a clock says what it took."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def release_unused() -> None:
    """Give back the device memory of all that nothing holds any more, also of what only cycles
    hold, as the frames of an error do.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
