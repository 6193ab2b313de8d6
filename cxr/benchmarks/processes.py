"""Run parts of a benchmark in separate processes, and watch their memory."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STOPPING = 10  # seconds that a process has to end, once it was asked to or has answered


class Failed(Exception):
    """A child process ended with an error; the message is what it printed last."""


class Late(Failed):
    """A child process was ended because its time was up."""


def contend(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The result of cxr.benchmarks.contenders for a spec, with `anonymous_MB`, the peak of the process's anonymous
    memory (Linux's RssAnon: mapped images do not count; None elsewhere)."""
    with started(["cxr.benchmarks.contenders", json.dumps(spec)]) as process:
        peak = [0.0]
        watcher = threading.Thread(target=watch_memory, args=(process, peak))
        watcher.start()
        out, err = process.communicate()
        watcher.join()
    if process.returncode:
        raise Failed("\n".join((err.strip() or out.strip()).splitlines()[-3:]))
    return {**json.loads(out.strip().splitlines()[-1]), "anonymous_MB": peak[0] or None}


def watch_memory(process: subprocess.Popen, peak: list[float]) -> None:
    """Keep the highest RssAnon of a process in peak[0], in MB, until it ends."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            match = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        except OSError:
            return
        peak[0] = max(peak[0], int(match[1]) / 1e3 if match else 0)
        time.sleep(0.01)


@contextmanager
def started(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """`python -m words`, its output captured; killed where we are interrupted."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", *words], **(pipes | options))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def train(words: Sequence[str]) -> tuple[float, float]:
    """Run `python -m cxr.train words` and return when the first epoch's line came and when it ended, in seconds."""
    begin, first = time.perf_counter(), 0.0
    with started(["cxr.train", *words], stderr=subprocess.STDOUT) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if not first and "epoch 1/" in line:
                first = time.perf_counter() - begin
        process.wait()
    if process.returncode:
        raise Failed("\n".join(lines[-3:]))
    return first, time.perf_counter() - begin


def run_command(words: Sequence[str], log: Path, limit: float) -> float:
    """Run `python -m words`, its output appended to `log`, and return the seconds it took.

    Raises:
        Late: it had not ended after `limit` seconds, and was stopped with all its children.
        Failed: its exit code was not 0.
    """
    begin = time.perf_counter()
    with log.open("ab") as file:
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(max(limit, 0))
        except subprocess.TimeoutExpired:
            raise Late(f"stopped at its limit of {limit:.0f} s") from None
        finally:
            end_group(process)
    if process.returncode:
        lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        raise Failed(f"exit code {process.returncode}: {' '.join(lines[-1:])}")
    return time.perf_counter() - begin


def end_group(process: subprocess.Popen) -> None:
    """Ask a process that leads a group of its own to stop, then end whatever is left of the group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPPING)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def fork_server() -> Any:
    """A multiprocessing context whose processes have imported the contenders already: a server imports once, from now
    on, and forks each of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cxr.benchmarks.contenders"])
    forkserver.ensure_running()
    return context


def contend_forked(context: Any, spec: Mapping[str, Any], log: Path, limit: float) -> dict[str, Any]:
    """The result of cxr.benchmarks.contenders for a spec, from a process of fork_server()'s context.

    Raises:
        Late: it took longer than `limit` seconds. Failed: it ended with an error.
    """
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(theirs, dict(spec), log))
    process.start()
    theirs.close()
    try:
        if not ours.poll(max(limit, 0)):
            raise Late(f"stopped at its limit of {limit:.0f} s")
        result = ours.recv()
        process.join(STOPPING)
    except EOFError:
        process.join()
        raise Failed(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, str):
        raise Failed(result)
    return result


def answer(connection: Connection, spec: dict[str, Any], log: Path) -> None:
    """Send the result of a contender, or the text of its error; what it prints goes to `log`."""
    from cxr.benchmarks.contenders import RUNS

    multiprocessing.set_start_method(None, force=True)  # a student's workers are forked, and import nothing anew
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        connection.send(RUNS[spec["run"]](spec))
    except Exception as error:  # whatever went wrong is one measurement's result, and does not end the others
        connection.send(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise
