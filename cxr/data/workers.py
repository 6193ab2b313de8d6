"""Work on images, spread over all cores."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from cxr.errors import UserError

SIGNALS = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)]
AHEAD = 4  # jobs for each core that are handed out before the first of them is done


def spread(work: Callable[[Any], Any], jobs: Iterable[Any], explain: Callable[[Sequence[Any]], str]) -> Iterator[Any]:
    """The results of some jobs, in their order, from as many processes as there are cores. (Threads would wait for each
    other: much of the decoding of a small image is Python.) Jobs are taken as they are needed, so that memory need not
    hold all of them.

    Raises:
        UserError: one of the processes was killed; `explain` gives the message for the jobs that may have been at work.
    """
    jobs = iter(jobs)
    first = [*islice(jobs, 2)]
    if len(first) < 2:
        yield from map(work, first)
        return
    # As torch's own workers do: fork, which takes no time, where it is safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    cores, parent = os.cpu_count() or 1, os.getpid()
    waiting: deque[tuple[Any, Future]] = deque()
    with ProcessPoolExecutor(cores, context, initializer=follow_parent, initargs=(parent,)) as pool:
        try:
            for job in chain(first, jobs):
                with deferred_signals():  # the first call forks
                    waiting.append((job, pool.submit(work, job)))
                if len(waiting) > AHEAD * cores:
                    yield waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool as error:  # every unfinished job now carries this error; those at work come first
            left = [job for job, future in waiting if not (future.done() and is_done(future))]
            raise UserError(explain(left[:cores])) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """A block that no stop signal interrupts; one that comes is raised again after it. (Python prints and forgets what
    a handler raises within the hooks of a fork, such as filelock's.)"""
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return
    came: list[int] = []
    pipe = signal.set_wakeup_fd(-1)  # who listens there hears it after the block, and once
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        for number in came:
            signal.raise_signal(number)


def is_done(future: Future) -> bool:
    """Whether a job ended with a result or an error, and not because another job's process was killed."""
    return not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def follow_parent(parent: int) -> None:
    """Prepare a process that works for its parent, a process number. Signals go to all processes of a terminal or job,
    but only the parent acts on them; SIGTERM still ends this one, as Python's pools need. It also ends when its parent
    has ended: it would keep its parent's locks."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
