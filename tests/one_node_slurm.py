"""A Slurm of one node, this machine, in a folder of its own: no munge, no root's files, no other Slurm disturbed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
KillWait=20
SlurmctldPort={ctld}
SlurmdPort={d}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:2
"""


def why_not() -> str:
    """Why there can be no Slurm here, or ""."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        return "slurmctld is not installed (Debian: slurm-wlm)"
    return "" if os.geteuid() == 0 else "slurmd has to be started by root"


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm that runs in the block; yields the environment in which its commands find it."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    conf = folder / "slurm.conf"
    (folder / "spool").mkdir()
    conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ctld=ports[0], d=ports[1]))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    daemons = []
    try:
        for daemon in ("slurmctld", "slurmd"):
            with (folder / f"{daemon}.out").open("w") as out:
                daemons.append(subprocess.Popen([daemon, "-D"], env=environment, stdout=out, stderr=out))
        for _ in range(100):
            states = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True).stdout
            if "idle" in states:
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f"Slurm did not become idle: {(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, timeout=30)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
