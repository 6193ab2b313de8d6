"""One run on several devices: a process for each, a rank, that trains on its part of every batch. What they agree on.

Lightning would start the whole command anew for each device, and all of them would work in one run folder. Here, the
processes of a cell are started as for isolate=true, so that launchers, sweeps and signals work as they always do.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from cxr.jobs import signals as stopping
from cxr.options.ranks import devices


def rank() -> int:
    """The number of this process among those of its run; 0 writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def ranks() -> int:
    """How many processes train this run together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


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
    """From now on, this process is alone: what follows training is the work of one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def agree(value: Any) -> Any:
    """What rank 0 gives, a plain value, on every rank."""
    if ranks() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def asked_or_due(due: bool) -> tuple[int, bool]:
    """The signal that any rank was asked to stop by, or 0, and whether something is due on any: to be called by all."""
    if ranks() == 1:
        return stopping.asked(), due
    said = torch.tensor([stopping.asked(), int(due)])
    distributed.all_reduce(said, distributed.ReduceOp.MAX)
    return int(said[0]), bool(said[1])


def gather(steps: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What the steps of all ranks left, rank after rank, on the CPU; of one process, the steps as they are."""
    if ranks() == 1:
        return steps
    found: list[Any] = [None] * ranks()
    distributed.all_gather_object(found, [tuple(tensor.cpu() for tensor in step) for step in steps])
    return [step for of_rank in found for step in of_rank]
