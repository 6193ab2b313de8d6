"""python -m cxr.bench: training speed against the network alone and against a student's loop."""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.benchmarks import processes
from cxr.data.image_table import ImageTable
from cxr.data.sources import read_images
from cxr.data.store import open_store
from cxr.errors import UserError
from cxr.files.run_folder import STATUS
from cxr.files.writing import read_json, write_json
from cxr.jobs.exit_codes import answering, fail
from cxr.options.command_line import read_runs
from cxr.reporting.leaderboard import markdown_table

Configs = Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]
Runs = Sequence[Mapping[str, Any]]
SCALES = (1_000, 10_000, 100_000)  # images

USAGE = """python -m cxr.bench [--scale] [--repeats N] [--seconds S] [--json FILE] [option=value …]
python -m cxr.bench --gpu [--images TAR] [--out DIR] [--minutes M] [--steps STEP,…]
Options are those of cxr.train; without model= and aug=, model=cnn,resnet18 and aug=on,off."""


def main() -> None:
    """Exit codes: 0 measured, 1 a process failed, 2 wrong options, 128 + N stopped by the signal of that number."""
    parser = argparse.ArgumentParser(prog="cxr.bench", usage=USAGE, allow_abbrev=False)
    parser.add_argument("--scale", action="store_true", help="only rate and memory, at 1, 10 and 100 thousand images")
    parser.add_argument("--gpu", action="store_true", help="measure everything on a GPU, in 8 minutes")
    parser.add_argument("--repeats", type=int, default=5, help="how often to measure each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=8, help="how long each time, after 3 warm-up steps (8)")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="the file to write (bench.json)")
    if "--gpu" in sys.argv[1:]:
        from cxr.benchmarks import gpu

        return gpu.main(sys.argv[1:])
    arguments, words = parser.parse_known_args()
    if arguments.repeats < 1 or not 0 < arguments.seconds < float("inf"):
        fail(UserError("--repeats must be at least 1, --seconds above 0"))
    for default in ("model=cnn,resnet18", "aug=on,off"):
        if not any(word.startswith(default[: default.index("=") + 1]) for word in words):
            words.append(default)
    with answering():
        if not arguments.json.absolute().parent.is_dir() or arguments.json.is_dir():
            raise UserError(f"--json {arguments.json}: not a file in an existing folder")
        if other := [word for word in words if word.startswith(("launcher=", "hparams=", "trainer=ddp"))]:
            raise UserError(f"{other[0]}: the benchmark measures one run after the other, on one device; leave it out")
        configs = read_runs(words)
        if len({(choices["model"], choices["aug"]) for choices, _ in configs}) < len(configs):
            raise UserError("the benchmark compares models and augmentation; give one value of every other option")
        try:
            with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
                measured = (scale if arguments.scale else compare)(configs, words, arguments, Path(folder))
        except processes.Failed as error:
            print(f"cxr: a process of the benchmark failed:\n{error}", file=sys.stderr)
            raise SystemExit(1) from None
    write_json(arguments.json, {"command": ["python", "-m", "cxr.bench", *sys.argv[1:]], **measured})
    print(f"\nall figures: {arguments.json}")


def compare(configs: Configs, words: list[str], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The network alone, cxr's loop and a student's, in turn, `repeats` times; then the store and start-up."""
    from cxr.benchmarks.decoding import build_rate
    from cxr.benchmarks.machine import describe

    images = open_images(configs)
    measured: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for choices, config in configs:
            name = f"{choices['model']} aug={choices['aug']}"
            contenders = {f"{choices['model']} alone": "alone", f"{name} cxr": "cxr"}
            if choices["model"] in ("cnn", "resnet18"):
                contenders[f"{name} student"] = "student"
            for label, run in contenders.items():
                say(label)
                spec = {"run": run, "model": choices["model"], "config": config, "images_root": str(images.root)}
                measured.setdefault(label, []).append(contend(spec, arguments, folder))
    ratios = {
        (choices["model"], choices["aug"]): compared(measured, choices["model"], choices["aug"])
        for choices, _ in configs
    }
    print(f"\n{speed_table(measured, ratios, arguments.repeats)}\n{arithmetic(measured)}")

    say("store")
    store = build_rate(images, configs[0][1]["data"]["image_size"], arguments.repeats)
    print(
        f"\nstore: built at {statistics.median(store['build_images_per_s']):.0f} images/s; one core decodes "
        f"{statistics.median(store['core_images_per_s']):.0f}/s, so this is "
        f"{store['ratio']:.2f} of what {store['cores']} cores decode"
    )
    around = sweep(words, folder, arguments.repeats)
    print(
        f"start to first step, warm store: {around['first_step_s']:.1f} s\n"
        f"sweep of {len(around['outside_s'])} runs, time outside training, validation and test: "
        f"{around['outside_s'][0]:.1f} s in the first run (with imports), "
        f"at most {max(around['outside_s'][1:], default=0):.1f} s in any other"
    )
    named = {f"{model} aug={aug}": ratio for (model, aug), ratio in ratios.items()}
    return {"machine": describe(), "runs": measured, "ratios": named, "store": store, "sweep": around}


def contend(spec: Mapping[str, Any], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One measurement, in a separate process with a separate folder."""
    with tempfile.TemporaryDirectory(dir=folder) as private:
        return processes.contend({**spec, "warm_up": 3, "seconds": arguments.seconds, "folder": private})


def compared(measured: Mapping[str, Runs], model: str, aug: str) -> dict[str, float | None]:
    """cxr's rate as a share of the network's and of the student's, medians; and the extra memory that it takes."""
    ours, network = measured[f"{model} aug={aug} cxr"], measured[f"{model} alone"]
    student = measured.get(f"{model} aug={aug} student")
    return {
        "of_network": rate(ours) / rate(network),
        "of_student": rate(ours) / rate(student) if student else None,
        "anonymous_MB_above_network": peak(ours) - peak(network),
    }


def speed_table(measured: Mapping[str, Runs], ratios: Mapping[tuple[str, str], Any], repeats: int) -> str:
    """The measured rates, one line for each model and augmentation."""
    rows = []
    for (model, aug), ratio in ratios.items():
        ours, network = measured[f"{model} aug={aug} cxr"], measured[f"{model} alone"]
        student = measured.get(f"{model} aug={aug} student", [])
        rows.append(
            [
                *(model, f"aug={aug}", spread(network), spread(ours), spread(student), f"{ratio['of_network']:.3f}"),
                *(f"{ratio['of_student']:.2f}" if student else "–", f"{peak(network):.0f}"),
                f"{ratio['anonymous_MB_above_network']:+.0f}",
            ]
        )
    header = [
        *("model", "aug", "network alone", "cxr", "student", "cxr / network", "cxr / student", "MB alone", "MB extra")
    ]
    about = f"{ours[0]['device']}, {ours[0]['precision']}"
    title = f"Training, images/s, median [lowest, highest] of {repeats} or more; {about}"
    return f"{title}\n{markdown_table(header, rows)}"


def arithmetic(measured: Mapping[str, Runs]) -> str:
    """How near the network alone comes to what the machine can do: a line for matrix products, one for each network."""
    alone = {name.removesuffix(" alone"): runs for name, runs in measured.items() if name.endswith(" alone")}
    products: dict[str, list[float]] = {}
    for runs in alone.values():
        for run in runs:
            for dtype, speed in run["matrix_product_gflop_per_s"].items():
                products.setdefault(dtype, []).append(speed)
    peaks = {dtype: statistics.median(speeds) for dtype, speeds in products.items()}
    lines = ["products of 2048×2048 matrices, GFLOP/s: " + ", ".join(f"{d} {p:,.0f}" for d, p in peaks.items())]
    for model, runs in alone.items():
        if speeds := [run["gflop_per_s"] for run in runs if "gflop_per_s" in run]:
            speed, (dtype, peak_speed) = statistics.median(speeds), list(peaks.items())[-1]
            lines.append(f"{model} alone: {speed:,.0f} GFLOP/s, {speed / peak_speed:.0%} of the product in {dtype}")
    return "\n".join(lines)


def scale(configs: Configs, _: list[str], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """cxr's loop at 1, 10 and 100 thousand images: the cost of an image must not grow with their number."""
    from cxr.benchmarks.machine import describe

    choices, config = configs[0]
    open_images(configs)
    measured: dict[int, list[dict[str, Any]]] = {images: [] for images in SCALES}
    for _ in range(arguments.repeats):
        for images in measured:
            say(f"{images} images")
            measured[images].append(contend({"run": "scale", "config": config, "images": images}, arguments, folder))
    base = measured[SCALES[0]]
    rows = [
        [
            f"{images:,}", spread(runs), f"{rate(runs) / rate(base):.3f}",
            f"{statistics.median(r['loader_images_per_s'] for r in runs):.0f}",
            f"{statistics.median(r['first_batch_s'] for r in runs) * 1e3:.0f}",
            f"{peak(runs) - peak(base):+.0f}",
        ]
        for images, runs in measured.items()
    ]  # fmt: skip
    header = ["images", "images/s", f"against {SCALES[0]:,}", "loader alone, images/s", "first batch, ms", "MB extra"]
    print(
        f"\n{choices['model']}, aug={choices['aug']}, {config['data']['image_size']} px\n{markdown_table(header, rows)}"
    )
    return {"machine": describe(), "scale": measured}


def open_images(configs: Configs) -> ImageTable:
    """The images of the first run. Their store is built before anything is timed."""
    say("building the store, if there is none yet")
    data, cache = configs[0][1]["data"], Path(configs[0][1]["cache_dir"]).expanduser()
    return open_store(read_images(data, cache), data["image_size"], cache)[1]


def sweep(words: Sequence[str], folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds until the first step, and seconds of each run outside training, validation and test."""
    few = ["trainer.max_epochs=2", "+trainer.limit_train_batches=3"]
    first = []
    for number in range(repeats):
        say("start")
        one = [word.partition(",")[0] if word.startswith(("model=", "aug=")) else word for word in words]
        alone = [*one, "data.val_fraction=0", "trainer.max_epochs=1", "+trainer.limit_train_batches=1"]
        first.append(processes.train([*alone, f"hydra.run.dir={folder}/first-{number}"])[0])
    say("sweep")
    processes.train(["-m", *words, *few, f"hydra.sweep.dir={folder}/sweep"])
    outside = []
    arguments = [read_json(path) | {"folder": path.parent} for path in (folder / "sweep").glob(f"*/{STATUS}")]
    for status in sorted(arguments, key=lambda status: status["started"]):
        spent = read_json(status["folder"] / "metrics.json")["train"]["seconds_in"]
        outside.append(status["seconds"] - sum(spent.values()))
    return {"first_step_s": statistics.median(first), "outside_s": outside}


def say(what: str) -> None:
    """Show what is being measured, if the output is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what} …", end="", file=sys.stderr, flush=True)


def rate(runs: Runs) -> float:
    return statistics.median(run["images_per_s"] for run in runs)


def peak(runs: Runs) -> float:
    return statistics.median(run["anonymous_MB"] or 0 for run in runs)


def spread(runs: Runs) -> str:
    """Median, and the lowest and highest of several runs."""
    rates = [run["images_per_s"] for run in runs]
    return f"{statistics.median(rates):.1f} [{min(rates):.1f}, {max(rates):.1f}]" if rates else "–"


if __name__ == "__main__":
    main()
