"""Which errors mean that memory ran out. No torch here: the driver judges errors too."""

from __future__ import annotations

_SAID = (
    "out of memory",  # CUDA's and HIP's allocators, and `CUDA error: out of memory`
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


class MemoryExhaustedError(RuntimeError):
    """A shard does not fit into memory, not even with batches of one."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator of torch, of one of its libraries or of Python refused.

    Such an error leaves the process whole: unlike a failed kernel it spoils no later call.
    """
    if isinstance(error, MemoryError | MemoryExhaustedError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
