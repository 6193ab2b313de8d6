"""Work on images that all cores do."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any

from cxr.errors import UserError
from cxr.jobs.signals import leave_to_parent

AHEAD = 4  # jobs for each core that are handed out before the first of them is done


def spread(work: Callable[[Any], Any], jobs: Iterable[Any], killed: Callable[[Sequence[Any]], str]) -> Iterator[Any]:
    """The results of some jobs, in their order, done by as many processes as there are cores. (Threads would wait for
    each other: much of the decoding of a small image is Python.) Jobs are asked for as they are needed: memory need not
    hold all of them.

    Raises:
        UserError: one of the processes was killed; `killed` says so of the jobs that may have been at work.
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
    with ProcessPoolExecutor(cores, context, initializer=leave_to_parent, initargs=(parent,)) as pool:
        try:
            for job in chain(first, jobs):
                waiting.append((job, pool.submit(work, job)))
                if len(waiting) > AHEAD * cores:
                    yield waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool as error:  # whatever job was not done has this error now, those at work before others
            left = [job for job, future in waiting if not (future.done() and is_done(future))]
            raise UserError(killed(left[:cores])) from error
        finally:
            pool.shutdown(cancel_futures=True)


def is_done(future: Future) -> bool:
    """Whether a job has a result, or an error of its own."""
    return not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)
