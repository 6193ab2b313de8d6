"""A cell in a process of its own: what kills it, kills nothing else."""

import faulthandler
import multiprocessing
import pickle
import signal
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from cxr import stopping
from cxr.errors import UserError
from cxr.results.run_folder import is_done, write_status


def train_isolated(
    job_logging: Mapping[str, Any], config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path, shared: bool
) -> None:
    """train_cell() with the same arguments in a process of its own, which is asked to stop whenever this one is.

    Args:
        job_logging: Hydra's options of that name.

    Raises:
        UserError: the process died.
        Exception: whatever train_cell() raised, with its traceback as a note.
    """
    # On Linux a server imports once what takes long, and forks each cell from there, where nothing has run yet.
    method = "forkserver" if sys.platform == "linux" else "spawn"
    multiprocessing.set_start_method(method, force=True)  # a child is told the default, and would not know joblib's
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["cxr.cell"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, job_logging, config, choices, folder, shared))
    with stopping.patient():
        child.start()
        theirs.close()
        with stopping.passed_on(partial(stopping.send, child.pid)):
            try:
                error = pickle.loads(ours.recv_bytes())
            except EOFError:
                error = None
            child.join()
    if error:
        raise error
    if child.exitcode:
        stopping.stop_if_asked()  # the signal came before the child could listen
        raise UserError(how_it_died(child.exitcode))


def how_it_died(code: int) -> str:
    """What to say of a process that ended without a word; `code` as multiprocessing has it."""
    if code >= 0:
        return f"its process ended with exit code {code} and without a word"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "its process was killed (SIGKILL), for memory perhaps: try a smaller data.batch_size, or fewer cells (n)"
    return f"its process crashed ({name}); the last words are in train.log"


def _child(
    answer: Connection,
    job_logging: Mapping[str, Any],
    config: Mapping[str, Any],
    choices: Mapping[str, Any],
    folder: Path,
    shared: bool,
) -> None:
    """Train, and send what that raised, or None. status.json gets this process's number, train.log its last words."""
    multiprocessing.set_start_method(None, force=True)  # for workers of this process's own
    stopping.listen()
    stopping.end_after(multiprocessing.parent_process().join)  # who asked for it, not the server that forked it
    configure_log(OmegaConf.create(dict(job_logging)))
    with (folder / "train.log").open("a") as log:
        faulthandler.enable(log)
        try:
            if not is_done(folder):
                write_status(folder, "running")
            from cxr.cell import train_cell

            train_cell(config, choices, folder, shared)
            error = None
        except (Exception, KeyboardInterrupt, SystemExit) as raised:
            error = as_sent(stopping.stopped() if stopping.asked() else raised, raised)
        faulthandler.disable()
    answer.send_bytes(error or pickle.dumps(None))
    answer.close()


def as_sent(error: BaseException, raised: BaseException) -> bytes:
    """An exception as bytes, with the traceback of what was `raised`."""
    error.add_note("".join(traceback.format_exception(raised)))
    try:
        pickle.loads(sent := pickle.dumps(error))
        return sent
    except Exception:  # not every exception travels
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
