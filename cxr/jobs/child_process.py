"""A run in its own process: if that is killed, the sweep continues."""

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
from typing import Any, NamedTuple

from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from cxr.errors import UserError
from cxr.files.status import is_done, write_status
from cxr.jobs.plan import Plan
from cxr.options.ranks import environments, ranks
from cxr.training import signals

GRACE = 5  # seconds


class Worker(NamedTuple):
    """A process that trains a run, and the pipe for its result."""

    process: Any
    answer: Connection


def train_isolated(plan: Plan, job_logging: Mapping[str, Any]) -> None:
    """Call train_and_test() in its own process, or in one per device. Stop signals are passed on to them.

    Args:
        job_logging: Hydra's options of that name.

    Raises:
        UserError: a process died.
        Exception: what train_and_test() raised, with its traceback as a note.
    """
    # On Linux a server imports torch once, and forks each run from that clean state.
    method = "forkserver" if sys.platform == "linux" else "spawn"
    multiprocessing.set_start_method(method, force=True)  # a child inherits the default, and does not know joblib's
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["cxr.jobs.run"])
    workers, trainer = [], plan.options["trainer"]
    with signals.patient():
        for environment in environments(trainer) if ranks(trainer) > 1 else [{}]:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(theirs, environment, job_logging, plan))
            child.start()
            theirs.close()
            workers.append(Worker(child, ours))
        with signals.passed_on(partial(send_signal, workers)):
            errors = wait_for_workers(workers)
    if errors:
        signals.stop_if_asked()  # a signal may have come before a child could listen
        raise first_cause(errors)


def send_signal(workers: Sequence[Worker], number: int) -> None:
    """Send a signal to the processes of a run."""
    for worker in workers:
        signals.send(worker.process.pid, number)


def wait_for_workers(workers: Sequence[Worker]) -> list[BaseException]:
    """Wait for the processes of a run, and return the errors that they raised, in their order. After the first failure
    the others, which might wait for it for ever, have GRACE seconds to report their own errors."""
    results: dict[Worker, BaseException | None] = {}
    waiting, patience = list(workers), None
    while waiting and (ready := wait([worker.answer for worker in waiting], patience)):
        for worker in [w for w in waiting if w.answer in ready]:
            waiting.remove(worker)
            results[worker] = receive_result(worker)
            if results[worker]:
                patience = GRACE
    for worker in waiting:
        worker.process.kill()
        worker.process.join()
    return [error for worker in workers if (error := results.get(worker))]


def receive_result(worker: Worker) -> BaseException | None:
    """The error that a process sent, or a UserError if it died without sending any; ends the process."""
    try:
        result = pickle.loads(worker.answer.recv_bytes())
        worker.process.join(GRACE)
        worker.process.kill()  # its work is written; waiting for a partner that is gone, it might never end
        worker.process.join()
        return result
    except EOFError:
        worker.process.join()
        code = worker.process.exitcode
        return UserError(death_message(code)) if code else None


def first_cause(errors: Sequence[BaseException]) -> BaseException:
    """The error that explains the others: processes that only lost their partner raise some other type."""
    return next((error for error in errors if isinstance(error, UserError | signals.Stopped)), errors[0])


def death_message(code: int) -> str:
    """Describe a process that ended without sending a result; `code`: its exit code, or minus the signal's number."""
    if code >= 0:
        return f"the process exited unexpectedly (exit code {code})"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return (
            "its process was killed (SIGKILL), perhaps because memory ran out: try a smaller data.batch_size, "
            "or fewer processes at a time; the same command, with its name=NAME, resumes from the last checkpoint"
        )
    if name == "SIGBUS":
        return (
            "its process crashed (SIGBUS): its decoded images in cache_dir were removed or cut short, or that disk or "
            "network share fails; the same command, with its name=NAME, decodes them again and resumes from the last "
            "checkpoint"
        )
    return f"its process crashed ({name}); train.log has its last output"


def _child(answer: Connection, environment: Mapping[str, str], job_logging: Mapping[str, Any], plan: Plan) -> None:
    """Train, as one of several ranks if `environment` sets RANK, and send the error raised, or None. status.json gets
    this process's number, train.log the stack if it crashes."""
    multiprocessing.set_start_method(None, force=True)  # for the workers of this process
    signals.listen()
    # The launching process, not the server that forked this one.
    signals.end_after(multiprocessing.parent_process().join)
    os.environ.update(environment)
    first = environment.get("RANK", "0") == "0"
    if first:  # all ranks log the same
        configure_log(OmegaConf.create(dict(job_logging)))
    with (plan.folder / "train.log").open("a") as log:
        faulthandler.enable(log)
        try:
            if first and not is_done(plan.folder, plan.options.get("trial")):
                write_status(plan.folder, "running")
            from cxr.jobs.run import train_and_test
            from cxr.training import distributed

            if environment:
                distributed.join(plan.options["trainer"])
            train_and_test(plan)
            error = None
        except (Exception, KeyboardInterrupt, SystemExit) as raised:
            error = as_sent(signals.stopped() if signals.asked() else raised, raised)
        faulthandler.disable()
    answer.send_bytes(error or pickle.dumps(None))
    answer.close()


def as_sent(error: BaseException, raised: BaseException) -> bytes:
    """An exception as bytes, with the traceback of `raised` as a note."""
    error.add_note("".join(traceback.format_exception(raised)))
    try:
        pickle.loads(sent := pickle.dumps(error))
        return sent
    except Exception:  # not every exception can be pickled
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
