"""A cell in a process of its own: what kills it, kills nothing else."""

import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from cxr.errors import UserError
from cxr.files.status import is_done, write_status
from cxr.jobs import signals
from cxr.options.ranks import environments, ranks

GRACE = 5  # seconds


class Worker(NamedTuple):
    """A process that works on a cell, and what it answers with."""

    process: Any
    answer: Connection


def train_isolated(
    job_logging: Mapping[str, Any], config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path, shared: bool
) -> None:
    """train_cell() with the same arguments in a process of its own, or one a device, which are asked to stop whenever
    this one is.

    Args:
        job_logging: Hydra's options of that name.

    Raises:
        UserError: a process died.
        Exception: whatever train_cell() raised, with its traceback as a note.
    """
    # On Linux a server imports once what takes long, and forks each cell from there, where nothing has run yet.
    method = "forkserver" if sys.platform == "linux" else "spawn"
    multiprocessing.set_start_method(method, force=True)  # a child is told the default, and would not know joblib's
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["cxr.jobs.run"])
    workers = []
    with signals.patient():
        for environment in environments(config["trainer"]) if ranks(config["trainer"]) > 1 else [{}]:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(theirs, environment, job_logging, config, choices, folder, shared)
            )
            child.start()
            theirs.close()
            workers.append(Worker(child, ours))
        with signals.passed_on(partial(tell, workers)):
            errors = answers(workers)
    if errors:
        signals.stop_if_asked()  # a signal may have come before a child could listen
        raise first_cause(errors)


def tell(workers: Sequence[Worker], number: int) -> None:
    """Send a signal to the processes of a cell."""
    for worker in workers:
        signals.send(worker.process.pid, number)


def answers(workers: Sequence[Worker]) -> list[BaseException]:
    """Wait for the processes of a cell, and return what they raised, in their order. Once one of them has failed, the
    others, which may wait for it for ever, have a moment to say what they know."""
    found: dict[Worker, BaseException | None] = {}
    waiting, patience = list(workers), None
    while waiting and (ready := wait([worker.answer for worker in waiting], patience)):
        for worker in [w for w in waiting if w.answer in ready]:
            waiting.remove(worker)
            try:
                found[worker] = pickle.loads(worker.answer.recv_bytes())
                worker.process.join(GRACE)
                worker.process.kill()  # all is said and written; what waits for a partner that has gone may never end
                worker.process.join()
            except EOFError:
                worker.process.join()
                code = worker.process.exitcode
                found[worker] = UserError(how_it_died(code)) if code else None
            if found[worker]:
                patience = GRACE
    for worker in waiting:
        worker.process.kill()
        worker.process.join()
    return [error for worker in workers if (error := found.get(worker))]


def first_cause(errors: Sequence[BaseException]) -> BaseException:
    """Of what the processes of a cell raised, what the others follow from: they only lost a partner."""
    return next((error for error in errors if isinstance(error, UserError | signals.Stopped)), errors[0])


def how_it_died(code: int) -> str:
    """What to say of a process that ended without a word; `code` as multiprocessing has it."""
    if code >= 0:
        return f"its process ended with exit code {code} and without a word"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return (
            "its process was killed (SIGKILL), for memory perhaps: try a smaller data.batch_size, or fewer processes "
            "at a time; the same command, with its name=NAME, goes on from the last checkpoint"
        )
    return f"its process crashed ({name}); the last words are in train.log"


def _child(
    answer: Connection,
    environment: Mapping[str, str],
    job_logging: Mapping[str, Any],
    config: Mapping[str, Any],
    choices: Mapping[str, Any],
    folder: Path,
    shared: bool,
) -> None:
    """Train, as one of several ranks where the environment says so, and send what that raised, or None. status.json
    gets this process's number, train.log its last words."""
    multiprocessing.set_start_method(None, force=True)  # for workers of this process's own
    signals.listen()
    signals.end_after(multiprocessing.parent_process().join)  # who asked for it, not the server that forked it
    os.environ.update(environment)
    if environment.get("RANK", "0") == "0":  # what all ranks do, one says
        configure_log(OmegaConf.create(dict(job_logging)))
    with (folder / "train.log").open("a") as log:
        faulthandler.enable(log)
        try:
            if environment.get("RANK", "0") == "0" and not is_done(folder):
                write_status(folder, "running")
            from cxr.jobs.run import train_cell
            from cxr.training import distributed

            if environment:
                distributed.join(config["trainer"])
            train_cell(config, choices, folder, shared)
            error = None
        except (Exception, KeyboardInterrupt, SystemExit) as raised:
            error = as_sent(signals.stopped() if signals.asked() else raised, raised)
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
