"""How many processes train one run, on which devices and machines. No torch here: the command line needs it too."""

import os
import socket
import subprocess
from collections.abc import Mapping
from typing import Any

from cxr.errors import UserError


def devices(trainer: Mapping[str, Any]) -> list[int]:
    """The devices of `trainer.devices` on each node, by their numbers."""
    value = trainer["devices"]
    return list(range(value)) if isinstance(value, int) else list(value)


def ranks(trainer: Mapping[str, Any]) -> int:
    """How many processes train a run, on all nodes."""
    return len(devices(trainer)) * trainer.get("num_nodes", 1)


def node(trainer: Mapping[str, Any]) -> int:
    """The number of this machine among those of a run. All but the first, 0, write nothing of their own."""
    if trainer.get("num_nodes", 1) == 1:
        return 0
    return int(os.environ.get("NODE_RANK") or os.environ.get("SLURM_NODEID") or 0)


def environments(trainer: Mapping[str, Any]) -> list[dict[str, str]]:
    """For each process that this machine starts for a run, the environment variables that tell torch.distributed and
    Lightning which process it is and where to meet the others.

    Raises:
        UserError: with several machines, the address of the first one is unknown.
    """
    here = len(devices(trainer))
    address, port = meeting_point(trainer)
    return [
        {
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(ranks(trainer)),
            "NODE_RANK": str(node(trainer)),
            "LOCAL_RANK": str(local),
            "RANK": str(node(trainer) * here + local),
        }
        for local in range(here)
    ]


def meeting_point(trainer: Mapping[str, Any]) -> tuple[str, int]:
    """Address and port where the processes of a run meet. Raises UserError as environments() does."""
    if trainer.get("num_nodes", 1) == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return "127.0.0.1", free.getsockname()[1]
    if address := os.environ.get("MASTER_ADDR"):
        return address, int(os.environ.get("MASTER_PORT", 29500))
    if nodes := os.environ.get("SLURM_JOB_NODELIST"):
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return names.stdout.split()[0], 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000
    raise UserError(
        "trainer.num_nodes: start the same command on every machine, with the same name=NAME, and with MASTER_ADDR "
        "(the first machine), MASTER_PORT and NODE_RANK (0, 1, …) in its environment; or use launcher=slurm"
    )
