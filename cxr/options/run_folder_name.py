"""How the run folders of a sweep are named, and the other interpolations of conf, such as ${folder_text:…}."""

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf


def folder_text(value: Any) -> str:
    """An option's value as a part of a folder's name: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "empty"


def gpus_wanted(accelerator: str, devices: Any) -> int | None:
    """GPUs that a job requests from Slurm on each node: as many as the trainer uses. None, not 0, if it uses none: a
    cluster without GPUs has no such resource."""
    if accelerator not in ("gpu", "cuda"):
        return None
    return devices if isinstance(devices, int) else len(devices)


OmegaConf.register_new_resolver("folder_text", folder_text, replace=True)
OmegaConf.register_new_resolver("gpus_wanted", gpus_wanted, replace=True)


def run_folder_pattern(options: Sequence[str], groups: Sequence[str]) -> str:
    """The interpolation that names a sweep's run folders: model, aug, seed and every other swept option."""
    names = ["${hydra.runtime.choices.model}", "aug-${hydra.runtime.choices.aug}", "seed-${seed}"]
    for option in options:
        if option not in ("model", "aug", "seed"):
            value = f"hydra.runtime.choices.{option}" if option in groups else option
            names.append(f"{option.replace('/', '.')}-${{folder_text:${{{value}}}}}")
    return "_".join(names)
