"""python -m cxr.benchmarks.runtimes: exported files with onnxruntime against the same graph with torch, on the CPU."""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from cxr.benchmarks.machine import describe
from cxr.benchmarks.stopwatch import Stopwatch
from cxr.models.classifier import Classifier
from cxr.models.ensemble import Ensemble
from cxr.models.exported import Graph, export_graph, from_content
from cxr.models.quantizing import quantize
from cxr.options.command_line import read_runs
from cxr.reporting.leaderboard import markdown_table

CLASSES = ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS")
THREADS, BATCHES = (1, 2), (1, 32)
SIDE, SHAPE = 224, (256, 256)  # of the networks' squares, and of the images


def main() -> None:
    """Print a table: images/s, medians of several measurements that are taken in turn, and their ratio."""
    parser = argparse.ArgumentParser(prog="cxr.benchmarks.runtimes", description=__doc__)
    parser.add_argument("--models", default="cnn,resnet18", help="networks of conf/model (cnn,resnet18)")
    parser.add_argument("--repeats", type=int, default=5, help="how often to measure each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=2, help="how long each time, after 3 warm-up steps (2)")
    arguments = parser.parse_args()
    rows = [row for name in arguments.models.split(",") for row in measure(name, arguments.repeats, arguments.seconds)]
    header = [
        *("network", "MB", "MB in int8", "threads", "batch", "torch", "onnxruntime", "in int8"),
        *("onnxruntime / torch", "in int8 / torch"),
    ]
    print(f"{markdown_table(header, rows)}\n\n{describe_all()}")


def measure(name: str, repeats: int, seconds: float) -> Iterator[list[str]]:
    """The rows of a network of conf/model with random weights."""
    ((_, config),) = read_runs([f"model={name}", f"data.image_size={SIDE}"])
    graph = Graph(Ensemble([Classifier(config["model"], config["optim"], CLASSES, SIDE)]))
    content = export_graph(graph, ".onnx", {"classes": CLASSES})
    small = quantize(content, drawn(8))
    megabytes = [f"{len(of_one) / 1e6:.1f}" for of_one in (content, small)]
    for threads in THREADS:
        torch.set_num_threads(threads)
        ways = [in_torch(graph), *(from_content(of_one, threads).probabilities for of_one in (content, small))]
        for batch in BATCHES:
            runs = [[rate(way, drawn(batch), seconds) for way in ways] for _ in range(repeats)]
            rates = [spread(of_way) for of_way in zip(*runs, strict=True)]
            ratios = [f"{statistics.median(run[way] / run[0] for run in runs):.2f}" for way in (1, 2)]
            yield [name, *megabytes, str(threads), str(batch), *rates, *ratios]


def drawn(batch: int) -> np.ndarray:
    """Noise, as an exported file takes images."""
    return np.random.default_rng(0).integers(0, 256, (batch, 1, *SHAPE)).astype(np.float32)


def spread(rates: Sequence[float]) -> str:
    """Median, and the lowest and highest."""
    return f"{statistics.median(rates):.1f} [{min(rates):.1f}, {max(rates):.1f}]"


def in_torch(graph: Graph) -> Callable[[np.ndarray], np.ndarray]:
    """The graph as torch computes it, without a file."""

    @torch.inference_mode()
    def compute(images: np.ndarray) -> np.ndarray:
        return graph(torch.from_numpy(images)).numpy()

    return compute


def rate(compute: Callable[[np.ndarray], Any], images: np.ndarray, seconds: float) -> float:
    """Images per second."""
    watch = Stopwatch(warm_up=3, seconds=seconds)
    watch.begin_epoch()
    while not watch.step(len(images)):
        compute(images)
    watch.end_epoch()
    return watch.result()["images_per_s"]


def describe_all() -> str:
    """The machine, and the versions that the figures depend on."""
    import onnx
    import onnxruntime

    facts = {**describe(), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)


if __name__ == "__main__":
    main()
