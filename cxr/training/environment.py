"""What the results of a run depend on: the device and the versions of the libraries."""

import os
import platform

import pytorch_lightning as pl
import torch
import torchmetrics
import torchvision

import cxr


def device_name(trainer: pl.Trainer) -> str:
    """The name of the device that trained, for people."""
    device = trainer.strategy.root_device.type
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device != "cpu":
        return device
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores)"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    modules = {
        "torch": torch,
        "torchvision": torchvision,
        "pytorch_lightning": pl,
        "torchmetrics": torchmetrics,
        "cxr": cxr,
    }
    return {"python": platform.python_version()} | {name: module.__version__ for name, module in modules.items()}
