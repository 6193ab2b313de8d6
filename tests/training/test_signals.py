"""Stop requests by signal: the first is recorded, a repeat is ignored, a later second one ends the process."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
from cxr.training import signals
signals.REPEAT = 0.2
def send(number):
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
first, second = map(int, sys.argv[1:])
with signals.listening():
    send(first)
    send(second)
    print("repeat ignored", flush=True)
    time.sleep(0.3)
    send(second)
    print("second ignored", flush=True)
    sys.exit(signals.exit_code())
"""
IGNORED = ["interrupted", "repeat ignored"]


@pytest.mark.parametrize(
    ("first", "second", "code", "output"),
    [
        (signal.SIGINT, signal.SIGINT, 130, IGNORED),
        (signal.SIGINT, signal.SIGTERM, 143, IGNORED),
        (signal.SIGTERM, signal.SIGTERM, 143, IGNORED),
        (signal.SIGHUP, signal.SIGHUP, 129, [*IGNORED, "second ignored"]),
        (signal.SIGHUP, signal.SIGINT, 130, IGNORED),
        (
            signal.SIGUSR2,
            signal.SIGTERM,
            143,
            IGNORED,
        ),  # Slurm's pair, and one more
    ],
)
def test_second_signal_ends_the_process_at_once(first, second, code, output):
    words = [sys.executable, "-c", PROGRAM, str(int(first)), str(int(second))]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.splitlines()) == (code, output), ended.stderr
