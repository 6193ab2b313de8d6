"""One run on several devices: each has a process, a rank, that trains on its part of every batch.

Lightning would start the whole command again for each device, all in one run folder. Here, the processes of a run are
started as with isolate=true, so that launchers, sweeps and signals work as with one device.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed

from cxr.models.gathering import ranks
from cxr.options.ranks import devices
from cxr.training import signals


def join(trainer: Mapping[str, Any]) -> None:
    """Join the other ranks; the parent process set the environment for it, see cxr.options.ranks.

    Args:
        trainer: the options `trainer.*`.
    """
    gpu = trainer["accelerator"] in ("gpu", "cuda") or (trainer["accelerator"] == "auto" and torch.cuda.is_available())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    if not gpu:  # they share the cores
        torch.set_num_threads(max(1, torch.get_num_threads() // len(devices(trainer))))


def leave() -> None:
    """Leave the other ranks: one process does what follows training."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def agree(value: Any) -> Any:
    """Send a plain value from rank 0 to all ranks, and return it."""
    if ranks() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def stop_or_due(due: bool) -> tuple[int, bool]:
    """The signal that asked any rank to stop, or 0; and whether something is due on any rank. All ranks call it."""
    if ranks() == 1:
        return signals.asked(), due
    flags = torch.tensor([signals.asked(), int(due)])
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return int(flags[0]), bool(flags[1])
