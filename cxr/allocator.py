"""How the C library deals with memory that torch gives back."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # numbers of <malloc.h>


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to use it again.

    As it comes, glibc asks the kernel for every large block and gives it back when it is freed. The activations and
    gradients of a step on a CPU are hundreds of MB in such blocks: each step then waits for the kernel to clear them
    page by page anew, which took a third of the time of a step of the CNN at 224 px on two cores. mallopt(3) switches
    that off. Where the C library is another one (musl, macOS), nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
