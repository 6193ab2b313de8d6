"""Signals: the first Ctrl-C or SIGTERM stops a run, a second ends it at once; a run also stops with its parent."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

# A closed terminal, Ctrl-C, a kill by a person or a batch system, what submitit has Slurm send before the time limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))
# A second one of these ends the process at once, whatever came before: Slurm sends SIGTERM after SIGUSR2.
INSISTING = (signal.SIGINT, signal.SIGTERM)
REPEAT = 1  # seconds; a launcher and the terminal may both send a process the same request


class Stopped(Exception):
    """A run was asked to stop, and all that resuming needs is saved. (An ordinary exception, so that every library on
    the way up cleans up.)"""


@dataclass
class _Request:
    signal: int = 0  # the first signal
    pipe: int = -1  # where Python writes the number of each signal at once, for _end_if_insisted(); -1: no pipe
    patient: int = 0  # number of open patient() blocks
    forwarders: list[Callable[[int], None]] = field(default_factory=list)  # pass a signal on to other processes


_request = _Request()  # signals belong to a process, so there is one


def listen() -> None:
    """Record stop signals instead of ending the process. Outside of patient() blocks, the first also
    raises KeyboardInterrupt. A second SIGINT or SIGTERM, at least REPEAT seconds later, ends the process at once with
    exit code 128 + N; other repeats change nothing. Signals that were ignored when the process began (nohup) stay
    ignored. Only in the main thread."""
    if _request.pipe == -1:
        reading, _request.pipe = os.pipe()
        os.set_blocking(_request.pipe, False)
        signal.set_wakeup_fd(_request.pipe, warn_on_full_buffer=False)
        threading.Thread(target=_end_if_insisted, args=(reading,), daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)


def _hear(number: int, frame: FrameType | None) -> None:
    first = not _request.signal
    if first:
        _request.signal = number
    for forward in tuple(_request.forwarders):
        forward(number)
    if first and not _request.patient:
        raise KeyboardInterrupt


def _end_if_insisted(numbers: int) -> None:
    """End this process when a SIGINT or SIGTERM comes again. In a thread of its own: where the main thread waits within
    a library for a device that hangs, Python calls no handler, but it still writes the signal to the pipe `numbers`."""
    first = 0.0
    while read := os.read(numbers, 64):
        for number in read:
            if number in INSISTING:
                now = time.monotonic()
                if first and now - first >= REPEAT:
                    os._exit(128 + number)  # child processes notice that this one is gone, and end too
                first = first or now
    os.close(numbers)


def _close_pipe() -> None:
    """Listen no more for repeated signals; a child process does not hear for its parent."""
    if _request.pipe != -1:
        signal.set_wakeup_fd(-1)
        os.close(_request.pipe)
        _request.pipe = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipe)


def asked() -> int:
    """The number of the signal that asked this process to stop, or 0."""
    return _request.signal


def exit_code() -> int:
    """128 + the number of the signal that asked this process to stop, as shells do."""
    return 128 + _request.signal


@contextmanager
def listening() -> Iterator[None]:
    """A block that records signals, see listen(); the handlers from before are restored after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        _close_pipe()
        _request.signal = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked(number: int = 0) -> None:
    """Raise Stopped if this process was asked to stop.

    Args:
        number: the signal that another process of the same run received, or 0.
    """
    if _request.signal or number:
        raise stopped(number)


def stopped(number: int = 0) -> Stopped:
    """The exception to raise; `number` as for stop_if_asked()."""
    return Stopped(f"stopped by {signal.Signals(_request.signal or number).name}")


def asked_by() -> str:
    """The name of the signal that asked this process to stop."""
    return signal.Signals(_request.signal).name


@contextmanager
def patient() -> Iterator[None]:
    """A block that polls with stop_if_asked(); signals do not interrupt it anywhere else."""
    _request.patient += 1
    try:
        yield
    finally:
        _request.patient -= 1


@contextmanager
def passed_on(forward: Callable[[int], None]) -> Iterator[None]:
    """A block in which `forward` gets the number of every stop signal, including one that came before the block."""
    _request.forwarders.append(forward)
    try:
        if _request.signal:
            forward(_request.signal)
        yield
    finally:
        _request.forwarders.remove(forward)


def send(pid: int, number: int) -> None:
    """Send a signal to a process, if it still exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def end_with_parent(parent: int) -> None:
    """End this process when the process `parent` has ended, however it ended. Otherwise it would work for nothing, or
    wait for ever and hold its parent's locks."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)

    end_after(follow)


def end_after(wait: Callable[[], Any]) -> None:
    """End this process when `wait`, called in a thread, returns."""

    def follow() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
