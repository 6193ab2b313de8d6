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
    time.sleep(60 if second in signals.INSISTING else 0)
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


# Training whose second step never ends. A device that hangs is like the lock: a wait in C, where no handler of signals
# in Python is called.
HANGS = {
    "in Python": """
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
    "in C": """
import ctypes
lock, of = ctypes.create_string_buffer(64), ctypes.CDLL(None)
of.pthread_mutex_lock(lock)
of.pthread_mutex_lock(lock)
""",
}
TRAIN = """
import sys, time
import cxr.train
from cxr.models.classifier import Classifier
step = Classifier.training_step
def hang(self, batch, batch_idx):
    if batch_idx == 1:
        print("hangs", flush=True)
        exec(HANG)
    return step(self, batch, batch_idx)
Classifier.training_step = hang
cxr.train.main()
"""


@pytest.mark.parametrize(("where", "number"), [("in C", signal.SIGTERM), ("in Python", signal.SIGINT)])
@pytest.mark.long
def test_the_second_signal_ends_a_step_that_hangs(tmp_path, small, where, number):
    words = ["trainer.max_epochs=1", *small, f"hydra.run.dir={tmp_path}/r"]
    command = [sys.executable, "-c", f"HANG = {HANGS[where]!r}{TRAIN}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert any(line == "hangs\n" for line in process.stdout)
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    finally:
        process.kill()
