"""Whether a device computes what cxr promises.

That is: resuming to the same bits, stopping what diverges, drawing what a CPU draws, and reporting in one line that
memory ran out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cxr.benchmarks.measurement import Bench
from cxr.benchmarks.processes import Failed, Late, end_group

EPOCHS = 6


def side_by_side(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """The checks by name, each as what returns its result: "passed" and what was seen.

    All but the last, which fills the memory, have begun side by side: none of them measures time."""
    several = ThreadPoolExecutor(16)
    few = ("aug=on", f"trainer.max_epochs={EPOCHS}", "+trainer.limit_train_batches=60")
    recipes = {
        "cnn": ("model=cnn", *few),
        "resnet18": ("model=resnet18", *few),
    }
    begun: dict[str, Future] = {}
    for name, words in recipes.items() if bench.gpu else [("cnn", recipes["cnn"])]:
        folder = bench.work / f"resumed-{name}"
        begun[f"stopped, killed and resumed: {name}"] = several.submit(check_resume, bench, folder, words)
    if bench.gpu:
        begun["CUDA graphs"] = several.submit(check_graphs, bench, bench.work / "graphs", recipes["resnet18"])
    begun["diverging run"] = several.submit(check_diverging, bench, bench.work / "diverging")
    begun["augmentation's draws"] = several.submit(check_draws, bench)
    several.shutdown(wait=False)
    return {name: future.result for name, future in begun.items()} | {"out of memory": partial(check_memory, bench)}


def check_resume(bench: Bench, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """A run that is stopped within an epoch, resumed, killed, and resumed to its end, against one that is left alone:
    weights, optimizer and predictions have to be the same to the last bit."""
    with ThreadPoolExecutor(1) as pool:
        alone = pool.submit(train, bench, folder / "alone", words)
        codes = [
            train(bench, folder / "resumed", words, "epoch 2/", signal.SIGTERM),
            train(bench, folder / "resumed", words, "epoch 4/", signal.SIGKILL),
            train(bench, folder / "resumed", words),
            alone.result(),
        ]
    if codes != [128 + signal.SIGTERM, -signal.SIGKILL, 0, 0]:
        raise Failed(f"exit codes {codes}: {last_line(folder / 'resumed')}")
    differs = difference(folder / "alone", folder / "resumed")
    return {"passed": not differs, "differs": differs or "in no bit"}


def check_graphs(bench: Bench, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """A run that replays CUDA graphs, against one that does not: the same kernels, so the same bits."""
    with ThreadPoolExecutor(2) as pool:
        settings = ("true", "false")
        runs = [pool.submit(train, bench, folder / on, (*words, f"cuda_graphs={on}")) for on in settings]
        codes = [run.result() for run in runs]
    if codes != [0, 0]:
        raise Failed(f"exit codes {codes}: {'; '.join(last_line(folder / on) for on in settings)}")
    differs = difference(folder / "true", folder / "false")
    return {"passed": not differs, "differs": differs or "in no bit"}


def train(bench: Bench, folder: Path, words: Sequence[str], line: str = "", number: int = 0) -> int:
    """Train in a folder, or continue there; if `line` is given, send a signal once it appears in the output.

    Returns:
        The exit code, as subprocess has it.

    Raises:
        Late: it did not end in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.log"
    with log.open("ab") as file:
        start = file.tell()
        command = [sys.executable, "-m", "cxr.train", *bench.words(*words), f"hydra.run.dir={folder / 'run'}"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None:
                if bench.left() <= 0:
                    raise Late("not finished: the time was up")
                if line and line.encode() in log.read_bytes()[start:]:
                    os.kill(process.pid, number)
                    line = ""
                time.sleep(0.02)
        finally:
            end_group(process)
    return process.returncode


def difference(ours: Path, theirs: Path) -> str:
    """Where two runs differ, or "" where they are the same to the last bit."""
    for name in ("best.ckpt", "last.ckpt"):
        path = Path("run", "checkpoints", name)
        both = [torch.load(run / path, map_location="cpu", weights_only=True) for run in (ours, theirs)]
        tensors = [dict(named_tensors({k: kept.get(k) for k in ("state_dict", "optimizer_states")})) for kept in both]
        if tensors[0].keys() != tensors[1].keys():
            return f"{name}: not the same tensors"
        if other := [key for key, tensor in tensors[0].items() if not torch.equal(tensor, tensors[1][key])]:
            apart = max((tensors[0][key].double() - tensors[1][key].double()).abs().max().item() for key in other)
            return f"{name}: {len(other)} of {len(tensors[0])} tensors, by {apart:.1e} at most"
    path = Path("run", "predictions.csv")
    return "" if (ours / path).read_bytes() == (theirs / path).read_bytes() else "predictions.csv"


def named_tensors(kept: Any, name: str = "") -> list[tuple[str, torch.Tensor]]:
    """All tensors in nested dicts and lists, with where they stand."""
    if isinstance(kept, torch.Tensor):
        return [(name, kept)]
    items = kept.items() if isinstance(kept, dict) else enumerate(kept) if isinstance(kept, list | tuple) else ()
    return [tensor for key, value in items for tensor in named_tensors(value, f"{name}/{key}")]


def check_diverging(bench: Bench, folder: Path) -> dict[str, Any]:
    """A run whose learning rate is far too high: it has to end with one line, and every checkpoint that it left has to
    be finite."""
    code, line = fails(bench, folder, "model=resnet18", "aug=on", "optim=sgd", "optim.lr=1e12", "trainer.max_epochs=3")
    kept = (folder / "run" / "checkpoints").glob("*.ckpt")
    bad = [path.name for path in kept if not all(map(is_finite, checkpoint_weights(path)))]
    return {"passed": code == 1 and "diverged" in line and not bad, "message": line, "damaged checkpoints": bad}


def checkpoint_weights(path: Path) -> list[torch.Tensor]:
    return list(torch.load(path, map_location="cpu", weights_only=True)["state_dict"].values())


def is_finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.isfinite().all())


def check_draws(bench: Bench) -> dict[str, Any]:
    """What augmentation draws on the device, against the CPU."""
    result = bench.contend(run="draws", config=bench.config("model=cnn", "aug=on"), epochs=30)
    return {"passed": result["differ"] == 0, **result}


def check_memory(bench: Bench) -> dict[str, Any]:
    """A batch that no GPU holds; without one, a network that no memory holds."""
    folder = bench.work / "memory"
    words = ("model=densenet121", "data.batch_size=100000") if bench.gpu else ("model=cnn", f"model.hidden={10**9}")
    code, line = fails(bench, folder, *words, "aug=on", "trainer.max_epochs=1")
    return {"passed": code == 1 and "memory" in line, "message": line}


def fails(bench: Bench, folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of a run that is to fail, and the line that it ends with; "" where that is no line of ours."""
    code, line = train(bench, folder, words), last_line(folder)
    traceback = "Traceback" in (folder / "output.log").read_text(errors="replace")
    return code, "" if traceback or not line.startswith("cxr: ") else line


def last_line(folder: Path) -> str:
    """What train() printed last."""
    lines = (folder / "output.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
