"""When a process has to stop: because a signal asks for it, or because whoever started it is gone."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar

# A closed terminal, Ctrl-C, a kill by a person or a batch system, what submitit has Slurm send before the time limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))


class Stopped(Exception):
    """A run was asked to stop; everything that it needs to go on is saved. (An ordinary exception: Hydra then says the
    end of the job to its callbacks, and every library on the way up cleans up.)"""


class _Asked:
    """What this process was told; signals belong to a process, so there is one."""

    signal = 0  # the first that came
    patient = 0  # somebody asks by himself, often enough
    tellers: ClassVar[list[Callable[[int], None]]] = []  # who passes it on to processes that do our work


def listen() -> None:
    """From now on, the signals that ask to stop are taken down instead of ending the process. Outside of patient()
    blocks, the first also raises KeyboardInterrupt; a further one changes nothing. One that was ignored when the
    process began (nohup) stays so. Only in the main thread."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)


def _hear(number: int, frame: FrameType | None) -> None:
    first, _Asked.signal = not _Asked.signal, _Asked.signal or number
    for tell in tuple(_Asked.tellers):
        tell(number)
    if first and not _Asked.patient:
        raise KeyboardInterrupt


def asked() -> int:
    """The number of the signal that asked this process to stop, or 0."""
    return _Asked.signal


def exit_code() -> int:
    """That of a process which stopped because it was asked to: as a shell names the death by that signal."""
    return 128 + _Asked.signal


@contextmanager
def listening() -> Iterator[None]:
    """A block that listens, see listen(); behind it everything is as before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        _Asked.signal = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked(number: int = 0) -> None:
    """Raise Stopped where this process was asked to stop, or another that works on the same run, by a signal of this
    number."""
    if _Asked.signal or number:
        raise stopped(number)


def stopped(number: int = 0) -> Stopped:
    """What to raise, in the process that was asked to stop or one that works with it."""
    return Stopped(f"stopped by {signal.Signals(_Asked.signal or number).name}")


def asked_by() -> str:
    """The name of the signal that asked this process to stop."""
    return signal.Signals(_Asked.signal).name


@contextmanager
def patient() -> Iterator[None]:
    """A block that calls stop_if_asked() where it can be left, and is left nowhere else."""
    _Asked.patient += 1
    try:
        yield
    finally:
        _Asked.patient -= 1


@contextmanager
def passed_on(tell: Callable[[int], None]) -> Iterator[None]:
    """A block in which the number of a signal that asks to stop is given to `tell`, also of one that came before."""
    _Asked.tellers.append(tell)
    try:
        if _Asked.signal:
            tell(_Asked.signal)
        yield
    finally:
        _Asked.tellers.remove(tell)


def send(pid: int, number: int) -> None:
    """Send a signal to a process; one that is not there any more need not get it."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def leave_to_parent(parent: int) -> None:
    """For a process that only ever does what its parent gives it: a signal to all of a terminal's processes, or to a
    whole job, is the parent's to act on. (SIGTERM still ends it: that is how Python's pools end their workers.)"""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """Let this process end when its parent, a process number, has ended, however that was: it would go on for nobody,
    or wait for ever and keep its parent's locks. (Of a process that was asked to end, Python's pools take care.)"""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)

    end_after(follow)


def end_after(wait: Callable[[], Any]) -> None:
    """Let this process end when `wait` returns, which happens in a thread of its own."""

    def follow() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
