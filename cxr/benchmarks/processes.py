"""Run a piece of a benchmark in a process of its own, and see how much memory it takes."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Failed(Exception):
    """A child process ended with an error; the message is what it printed last."""


def contend(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The result of cxr.benchmarks.contenders for a spec, with `anonymous_MB`, the peak of the process's anonymous
    memory (Linux's RssAnon: mapped films do not count; None elsewhere)."""
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
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        except OSError:
            return
        peak[0] = max(peak[0], int(found[1]) / 1e3 if found else 0)
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
