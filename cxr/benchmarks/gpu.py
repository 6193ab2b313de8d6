"""python -m cxr.bench --gpu: measure everything on a GPU, in eight minutes; without one, a dry run.

Each step has a time limit of its own, and what it found is written to gpu.json and gpu.md at once: a measurement that
was cut off loses only what it did not reach.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cxr.benchmarks import checks, processes
from cxr.benchmarks.grid import seconds_of, watched_gpu
from cxr.benchmarks.machine import describe
from cxr.benchmarks.measurement import FULL, TOY, Bench, unpacked
from cxr.errors import UserError
from cxr.jobs.exit_codes import answering

USAGE = "python -m cxr.bench --gpu [--images TAR] [--out DIR] [--minutes M] [--steps STEP,…]"


# What a step may take at most, in seconds. Their sum is more than the whole may take: what one leaves, others have.
LIMITS = {
    "prepare": 100,
    "loop": 130,
    "grid": 170,
    "parallel": 180,
    "step": 60,
    "compile": 110,
    "checks": 90,
    "trace": 40,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32 without TF32": {"precision": "32-true", "tf32": False},
    "fp32 with TF32": {"precision": "32-true", "tf32": True},
    "bf16": {},
    "bf16, not channels_last": {"layout": "contiguous_format"},
    "bf16, cuDNN's fastest algorithms": {"search": True},
    "bf16, the network as CUDA graphs, as cxr does": {"graph": "network"},
    "bf16, the whole step as a CUDA graph": {"graph": "step"},
}
COMPILED: dict[str, dict[str, Any]] = {
    "bf16, compiled": {},
    "bf16, compiled, mode reduce-overhead": {"mode": "reduce-overhead"},
}


def prepare(bench: Bench) -> None:
    """Images, and everything about them that is worked out once: the store, copies, rules that do not look at lungs."""

    def unpack() -> dict[str, Any]:
        bench.root = unpacked(bench.images, bench.work / "images", bench.size.images)
        return {}

    def work_out() -> dict[str, Any]:
        few = ("model=cnn", "trainer.max_epochs=1", "+trainer.limit_train_batches=2")
        return {"seconds": bench.train(*few, f"hydra.run.dir={bench.work}/first")}

    bench.take("prepare", "images", unpack)
    bench.take("prepare", "store, copies and shortcuts, from nothing", work_out)


def measure_loop(bench: Bench) -> None:
    """cxr's loop against the network alone and a student's loop."""
    for batch in bench.size.batches:
        for model in ("cnn", "resnet18"):
            config = bench.config(
                f"model={model}", "aug=on", f"data.batch_size={batch}", "trainer.precision=bf16-mixed"
            )
            for run in ("alone", "cxr", "student"):
                bench.take(
                    "loop",
                    f"{model}, batch {batch}: {run}",
                    lambda run=run, model=model, config=config: bench.contend(
                        run=run, model=model, config=config, images_root=str(bench.root)
                    ),
                )


def measure_grid(bench: Bench) -> None:
    """The 2 × 2 grid at the capstone's settings, one run after the other."""
    sweep(bench, "grid", "one after the other", bench.size.epochs)


def measure_parallel(bench: Bench) -> None:
    """The same, several runs at a time, for fewer epochs."""
    for number in (4, 2):
        words = ("launcher=parallel", f"n={number}")
        sweep(bench, "parallel", f"{number} at a time", bench.size.few_epochs, *words)


def sweep(bench: Bench, step: str, name: str, epochs: int, *words: str) -> None:
    folder = bench.work / name.replace(" ", "-")
    grid = ("-m", "model=cnn,resnet18", "aug=on,off", f"trainer.max_epochs={epochs}", *words)

    def run() -> dict[str, Any]:
        begin = time.time()
        with watched_gpu(bench.gpu) as use:
            try:
                failed = {}
                bench.train(*grid, f"hydra.sweep.dir={folder}")
            except processes.Failed as error:
                failed = {"failed": str(error)}
        return failed | seconds_of(folder, begin, time.time()) | {"gpu": use, "command": " ".join(grid)}

    bench.take(step, name, run)


def measure_step(bench: Bench) -> None:
    """What precision and CUDA graphs make of a step of the network alone, at the smaller batch."""
    for name, variant in VARIANTS.items():
        for model in ("resnet18", "cnn"):
            if "graph" in variant and not bench.gpu:
                bench.skip("step", f"{model}, {name}", "needs CUDA")
            else:
                how = {key: variant[key] for key in ("tf32", "graph", "layout", "search") if key in variant}
                vary(bench, "step", model, name, f"trainer.precision={variant.get('precision', 'bf16-mixed')}", **how)


def measure_compiled(bench: Bench) -> None:
    """The same for torch.compile, which takes long to begin."""
    for model in ("resnet18", "cnn"):
        for name, how in COMPILED.items():
            if model == "resnet18" and not bench.gpu:
                bench.skip("compile", f"{model}, {name}", "takes too long for a dry run")
            else:
                vary(bench, "compile", model, name, "trainer.precision=bf16-mixed", "compile=true", **how)


def vary(bench: Bench, step: str, model: str, name: str, *words: str, **how: Any) -> None:
    config = bench.config(f"model={model}", "aug=on", f"data.batch_size={bench.size.batches[0]}", *words)
    spec = {"run": "alone", "config": config, "seconds": bench.size.seconds / 2, **how}
    bench.take(step, f"{model}, {name}", lambda: bench.contend(**spec))


def check(bench: Bench) -> None:
    """Whether a GPU computes what cxr promises."""
    for name, measure in checks.side_by_side(bench).items():
        bench.take("checks", name, measure)


def trace(bench: Bench) -> None:
    """What device and host do within twenty steps."""
    for model in ("resnet18", "cnn"):
        batch = bench.size.batches[0]
        config = bench.config(f"model={model}", "aug=on", f"data.batch_size={batch}", "trainer.precision=bf16-mixed")
        path = str(bench.out / f"trace-{model}.json.gz")
        bench.take(
            "trace",
            f"{model}, batch {batch}",
            lambda config=config, path=path: bench.contend(run="trace", config=config, steps=20, trace=path),
        )


STEPS: dict[str, Callable[[Bench], None]] = {
    "prepare": prepare,
    "loop": measure_loop,
    "grid": measure_grid,
    "parallel": measure_parallel,
    "step": measure_step,
    "compile": measure_compiled,
    "checks": check,
    "trace": trace,
}


def main(argv: Sequence[str]) -> None:
    """Exit codes: 0 everything was measured, 1 something failed or was not reached, 2 wrong options."""
    parser = argparse.ArgumentParser(prog="cxr.bench --gpu", usage=USAGE, allow_abbrev=False)
    images_help = "a tar or a folder with one folder of images per class; without it, drawn images"
    parser.add_argument("--images", "--films", type=Path, help=images_help)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for gpu.json and gpu.md (runs/gpu)")
    parser.add_argument("--minutes", type=float, default=8, help="how long all steps together may take (8)")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"which of {','.join(STEPS)}, in this order (all)")
    arguments = parser.parse_args([word for word in argv if word != "--gpu"])
    end = time.monotonic() + arguments.minutes * 60
    with answering():
        check_arguments(arguments)
        machine = describe()
        gpu = machine["gpu"] is not None
        if not gpu:
            print("no GPU here: a dry run of every step, at toy size on the CPU; its figures mean nothing")
        with tempfile.TemporaryDirectory(prefix="cxr-gpu-") as work:
            size, images = (FULL, arguments.images) if gpu else (TOY, None)
            bench = Bench(size, gpu, images, arguments.out, Path(work), end)
            steps = list(dict.fromkeys(["prepare", *arguments.steps.split(",")]))
            command = ["python", "-m", "cxr.bench", *argv]
            bench.results = {"command": command, "machine": machine, "requested": steps, "steps": {}}
            measure(bench, steps)
    print(f"\n{(arguments.out / 'gpu.md').read_text(encoding='utf-8')}\nall figures: {arguments.out / 'gpu.json'}")
    if failed := bench.failed():
        print(f"cxr: failed or not reached: {'; '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Make the output folder. Raises UserError where an argument is wrong."""
    if unknown := [step for step in arguments.steps.split(",") if step not in STEPS]:
        raise UserError(f"--steps {unknown[0]}: there is no such step; choose from {', '.join(STEPS)}")
    if arguments.images and not arguments.images.exists():
        raise UserError(f"--images {arguments.images}: no such file or folder")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {arguments.out}: cannot be created ({error.strerror}); choose another folder"
        ) from error


def measure(bench: Bench, steps: Sequence[str]) -> None:
    """Take the steps in turn, until the time is up."""
    begin = time.monotonic()
    for name in steps:
        if name != "prepare" and bench.root is None:  # there are no images to measure with
            break
        bench.step_end = time.monotonic() + LIMITS[name]
        STEPS[name](bench)
    bench.results["seconds"] = round(time.monotonic() - begin, 1)
    bench.write()
