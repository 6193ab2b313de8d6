"""Gather what the processes of one run, its ranks, computed for their parts of a batch."""

from typing import Any

from torch import Tensor, distributed

Step = tuple[Tensor, ...]


def rank() -> int:
    """The number of this process among those of its run; rank 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def ranks() -> int:
    """How many processes train this run together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(steps: list[Step]) -> list[Step]:
    """The results of the steps of all ranks, rank after rank, on the CPU. With one process: `steps` itself."""
    if ranks() == 1:
        return steps
    results: list[Any] = [None] * ranks()
    distributed.all_gather_object(results, [tuple(tensor.cpu() for tensor in step) for step in steps])
    return [step for rank_steps in results for step in rank_steps]
