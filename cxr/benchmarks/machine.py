"""What the figures of a benchmark depend on: the machine, and the versions of what is installed."""

import os
import platform
import subprocess
import time
from typing import Any

import torch

from cxr.training.environment import versions


def describe() -> dict[str, Any]:
    """The machine; "gpu" is None, or the name, driver, memory in MB, CUDA and cuDNN of the first one."""
    facts = {"platform": platform.platform(), "cores": os.cpu_count(), "time": time.strftime("%Y-%m-%d"), **versions()}
    return {**facts, "gpu": describe_gpu() if torch.cuda.is_available() else None}


def describe_gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_MB": properties.total_memory // 2**20,
        "driver": ask_smi("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def ask_smi(what: str) -> str | None:
    """What nvidia-smi answers to a query about the first GPU, or None where it does not."""
    words = ["nvidia-smi", "--id=0", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
