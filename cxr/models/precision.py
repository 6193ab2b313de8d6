"""fp32, fp16 or bf16: which one a run computes in on its device, and networks that compute in it."""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch.nn import functional as F

log = logging.getLogger(__name__)

FULL = "32-true"
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CLEARLY = 1.3  # times as fast: casts take some of it, and noise must not decide


def best_device() -> str:
    """cuda, mps or cpu."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(accelerator: str) -> str:
    """The device that `trainer.accelerator` means here: cuda, mps or cpu; it may be missing."""
    return {"auto": best_device(), "gpu": "cuda"}.get(accelerator, accelerator)


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware that will be used multiplies bf16 clearly faster than fp32, else 32-true."""
    device = device_of(accelerator)
    if device == "cuda":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and bf16_gain() > CLEARLY
    return "bf16-mixed" if fast else FULL


@cache
def bf16_gain(size: int = 512, repeats: int = 20) -> float:
    """How many times faster this CPU multiplies matrices in bf16 than in fp32.

    Measured in some 100 ms, in turn, so that other load falls on both. The features that a CPU reports do not answer
    this: with AVX512-BF16, an AMD Zen 4 was 2.2 times as fast, but an Intel Xeon in a virtual machine without AMX half
    as fast.
    """
    matrices = [torch.ones(size, size, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    fastest = [float("inf"), float("inf")]
    for _ in range(repeats):
        for kind, matrix in enumerate(matrices):
            begin = time.perf_counter()
            matrix @ matrix
            fastest[kind] = min(fastest[kind], time.perf_counter() - begin)
    return fastest[0] / fastest[1]


def can_compute(dtype: torch.dtype, device: str) -> bool:
    """Whether a device can convolve in a dtype at all, however slowly."""
    try:
        pixel = torch.ones(1, 1, 1, 1, device=device)
        with torch.autocast(device, dtype):
            return F.conv2d(pixel, pixel).dtype == dtype
    except (RuntimeError, TypeError, AssertionError):  # each kind of device has its own
        return False


@cache  # one warning
def possible(precision: str, device: str) -> str:
    """The precision, or 32-true, with a warning, where the device cannot compute in it."""
    if precision in MIXED and not can_compute(MIXED[precision], device):
        log.warning(
            "this device (%s) cannot compute in %s: it uses fp32, and figures differ slightly", device, precision
        )
        return FULL
    return precision


def computing_in(precision: str, device: str) -> AbstractContextManager:
    """A block in which networks compute in a precision, as Lightning's Trainer has them do; see possible()."""
    dtype = MIXED.get(possible(precision, device))
    return torch.autocast(device, dtype, cache_enabled=False) if dtype else nullcontext()
