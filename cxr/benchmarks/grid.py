"""Where the seconds of a sweep went, and how busy the GPU was meanwhile."""

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr.benchmarks.machine import ask_smi
from cxr.files.run_folder import STATUS
from cxr.files.writing import read_json


def seconds_of(folder: Path, begin: float, end: float) -> dict[str, Any]:
    """Seconds of a sweep's command, which began and ended at these times (as time.time() has them), and of its runs.

    Returns:
        "seconds" in all; "before" the first run began; "after" the last one had ended; "runs": {run: seconds in all, in
        training, validation, test and elsewhere, images_per_s in training, and the scores}, of the runs that are done.
    """
    runs, started, ended = {}, [], []
    for path in sorted(folder.glob(f"*/{STATUS}")):
        status, metrics = read_json(path), read_json(path.parent / "metrics.json")
        started.append(status["started"])
        if status["status"] != "done":
            continue
        ended.append(status["started"] + status["seconds"])
        spent = metrics["train"]["seconds_in"]
        runs[path.parent.name] = {
            "seconds": status["seconds"],
            **spent,
            "elsewhere": round(status["seconds"] - sum(spent.values()), 2),
            "images_per_s": metrics["train"]["images_per_s"],
            "f1_macro": metrics["test"]["f1_macro"],
            "accuracy": metrics["test"]["accuracy"],
            "n_test": metrics["n_test"],
        }
    return {
        "seconds": round(end - begin, 1),
        "before": round(min(started, default=end) - begin, 1),
        "after": round(end - max(ended), 1) if ended else None,
        "runs": runs,
    }


@contextmanager
def watched_gpu(there: bool, every: float = 0.5) -> Iterator[dict[str, Any]]:
    """Within the block, ask nvidia-smi how busy the GPU is; the answer, complete after the block, has the mean share of
    time in which a kernel ran ("busy_percent") and the most memory that was taken ("memory_MB")."""
    use: dict[str, Any] = {}
    if not there:
        yield use
        return
    over, busy, memory = threading.Event(), [], []

    def watch() -> None:
        while not over.wait(every):
            if answer := ask_smi("utilization.gpu,memory.used"):
                first, second = answer.split(", ")
                busy.append(float(first))
                memory.append(float(second))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield use
    finally:
        over.set()
        watcher.join()
        if busy:
            use |= {"busy_percent": round(statistics.mean(busy)), "memory_MB": max(memory)}
