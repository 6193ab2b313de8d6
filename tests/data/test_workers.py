"""Processes that share work: a signal that comes while they are forked is neither lost nor printed."""

import subprocess
import sys

PROGRAM = """
import os, signal
from cxr.data.workers import spread

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))  # in the hooks of each fork
try:
    print(list(spread(abs, range(-4, 0), str)))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_within_a_fork_interrupts_after_it():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")
