"""python -m cxr.bench --gpu: all that there is to measure on a GPU, in eight minutes; without one, a dry run of it.

Each step has a time limit of its own, and what it found is written to gpu.json and gpu.md at once: a measurement that
was cut off loses only what it did not reach.
"""

import argparse
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr.benchmarks import checks, gpu_report, processes
from cxr.benchmarks.grid import seconds_of, watched_gpu
from cxr.data.phantom import draw_phantom
from cxr.errors import UserError
from cxr.files.writing import write_json
from cxr.jobs.exit_codes import answering
from cxr.options.command_line import read_cells

USAGE = "python -m cxr.bench --gpu [--images TAR] [--out DIR] [--minutes M] [--steps STEP,…]"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int  # to draw, where there are none
    options: Sequence[str]
    batches: Sequence[int]
    seconds: float  # of each measurement of a rate
    epochs: int  # of each run of the grid
    few_epochs: int  # of each run, where several runs go on at a time
    warm_up: int  # steps


FULL = Size(7_103, ("data.image_size=224",), (32, 256), 2.5, 30, 10, 10)
TOY = Size(80, ("data.image_size=32",), (8, 16), 0.2, 2, 1, 2)

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


@dataclass
class Bench:
    """A measurement that goes on: what it measures with, what was found, until when it may go on."""

    size: Size
    gpu: bool
    images: Path | None  # a tar or a folder
    out: Path
    work: Path
    end: float  # on time.monotonic()'s clock
    root: Path | None = None  # the folder of images, once it is there
    found: dict[str, Any] = field(default_factory=dict)
    step_end: float = 0.0

    def __post_init__(self) -> None:
        self.log = self.out / "gpu.log"
        self.server = processes.fork_server()

    def left(self) -> float:
        """Seconds until the step that is at work has to end."""
        return min(self.end, self.step_end) - time.monotonic()

    def take(self, step: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure one thing and write what was found, if only that it failed."""
        print(f"{step}: {name} …", flush=True)
        begin = time.monotonic()
        try:
            if self.left() <= 0:
                raise processes.Late("not reached: the time was up")
            result = dict(measure())
        except (processes.Failed, UserError) as error:
            result = {"failed": str(error)}
            print(f"  {error}", flush=True)
        self.found["steps"].setdefault(step, {})[name] = {**result, "took_s": round(time.monotonic() - begin, 2)}
        self.write()

    def skip(self, step: str, name: str, why: str) -> None:
        self.found["steps"].setdefault(step, {})[name] = {"skipped": why}

    def write(self) -> None:
        write_json(self.out / "gpu.json", self.found)
        (self.out / "gpu.md").write_text(gpu_report.as_markdown(self.found), encoding="utf-8")

    def words(self, *more: str) -> list[str]:
        """Options of cxr.train for the images at hand."""
        data = ("data=folder", f"data.root={self.root}", f"cache_dir={self.work / 'cache'}")
        return [*data, *self.size.options, *more]

    def config(self, *more: str) -> Mapping[str, Any]:
        """The options of one run."""
        ((_, config),) = read_cells(self.words(*more))
        return config

    def contend(self, **spec: Any) -> dict[str, Any]:
        """One measurement by cxr.benchmarks.contenders."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            given = {"seconds": self.size.seconds, "warm_up": self.size.warm_up, "folder": folder, **spec}
            return processes.contend_forked(self.server, given, self.log, self.left())

    def train(self, *words: str) -> float:
        """Run cxr.train; the seconds it took."""
        return processes.run_command(["cxr.train", *self.words(*words)], self.log, self.left())


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


def unpacked(images: Path | None, folder: Path, number: int) -> Path:
    """The folder that holds images: that of a tar, a folder itself, or drawn ones. Raises UserError: it is no tar."""
    if images is None:
        draw_phantom(folder, images=number)
        return folder
    if images.is_dir():
        return images.absolute()
    try:
        with tarfile.open(images) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"--images {images}: cannot be unpacked ({error}); give a tar, or a folder") from error
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


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
    for name, told in VARIANTS.items():
        for model in ("resnet18", "cnn"):
            if "graph" in told and not bench.gpu:
                bench.skip("step", f"{model}, {name}", "needs CUDA")
            else:
                how = {key: told[key] for key in ("tf32", "graph", "layout", "search") if key in told}
                vary(bench, "step", model, name, f"trainer.precision={told.get('precision', 'bf16-mixed')}", **how)


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
    parser.add_argument(
        "--images", "--films", type=Path, help="a tar or a folder of images, one folder a class; without: drawn ones"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where gpu.json and gpu.md go (runs/gpu)")
    parser.add_argument("--minutes", type=float, default=8, help="what all steps may take (8)")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)}, in this order (all)")
    told = parser.parse_args([word for word in argv if word != "--gpu"])
    end = time.monotonic() + told.minutes * 60
    with answering():
        wanted = told.steps.split(",")
        if unknown := [step for step in wanted if step not in STEPS]:
            raise UserError(f"--steps {unknown[0]}: there is no such step; choose from {', '.join(STEPS)}")
        if told.images and not told.images.exists():
            raise UserError(f"--images {told.images}: no such file or folder")
        try:
            told.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {told.out}: cannot be made ({error.strerror}); choose another folder") from error
        from cxr.benchmarks.machine import describe  # torch

        machine = describe()
        gpu = machine["gpu"] is not None
        if not gpu:
            print("no GPU here: a dry run of every step, at toy size on the CPU; its figures say nothing")
        with tempfile.TemporaryDirectory(prefix="cxr-gpu-") as work:
            bench = Bench(FULL if gpu else TOY, gpu, told.images if gpu else None, told.out, Path(work), end)
            command = ["python", "-m", "cxr.bench", *argv]
            wanted = list(dict.fromkeys(["prepare", *wanted]))
            bench.found = {"command": command, "machine": machine, "wanted": wanted, "steps": {}}
            begin = time.monotonic()
            for name in wanted:
                if name != "prepare" and bench.root is None:
                    break
                bench.step_end = time.monotonic() + LIMITS[name]
                STEPS[name](bench)
            bench.found["seconds"] = round(time.monotonic() - begin, 1)
            bench.write()
    bad = [
        f"{step}, {name}" for step, of in bench.found["steps"].items() for name, one in of.items() if "failed" in one
    ]
    print(f"\n{(told.out / 'gpu.md').read_text(encoding='utf-8')}\nall figures: {told.out / 'gpu.json'}")
    if bad:
        print(f"cxr: failed or not reached: {'; '.join(bad)}", file=sys.stderr)
        raise SystemExit(1)
