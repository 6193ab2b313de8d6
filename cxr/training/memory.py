"""Memory: keep what torch frees, and explain a lack of it."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cxr.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # numbers of <malloc.h>


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to use it again.

    By default, glibc requests every large block from the kernel and returns it when it is freed. The activations and
    gradients of a step on a CPU are hundreds of MB in such blocks, which the kernel clears page by page in each step:
    a third of the time of a step of the CNN at 224 px on two cores. mallopt(3) switches that off. With another C
    library (musl, macOS), this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """A block that trains with batches of this size. Raises UserError where a GPU, or the machine, has too little
    memory for it."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            where = f"{torch.cuda.get_device_name()} has too little free memory"
        elif "can't allocate memory" in str(error):  # torch's allocator on a CPU has no exception of its own
            where = "this machine has too little free memory"
        else:
            raise
        raise UserError(
            f"data.batch_size={batch_size}: {where} for this network; use a smaller data.batch_size or "
            "data.image_size, or fewer runs at a time"
        ) from error
