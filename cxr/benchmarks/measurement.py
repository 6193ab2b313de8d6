"""What the steps of cxr.benchmarks.gpu share: sizes, images, deadlines, and the files that results go to."""

import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr.benchmarks import gpu_report, processes
from cxr.data.phantom import draw_phantom
from cxr.errors import UserError
from cxr.files.writing import write_json
from cxr.options.command_line import read_runs


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int  # to draw, where there are none
    options: Sequence[str]
    batches: Sequence[int]
    seconds: float  # of each measurement of a rate
    epochs: int  # of each run of the grid
    few_epochs: int  # of each run, where several runs at a time
    warm_up: int  # steps


FULL = Size(7_103, ("data.image_size=224",), (32, 256), 2.5, 30, 10, 10)
TOY = Size(80, ("data.image_size=32",), (8, 16), 0.2, 2, 1, 2)


@dataclass
class Bench:
    """One measurement of a machine: its size, its images, its results so far, and its deadline."""

    size: Size
    gpu: bool
    images: Path | None  # a tar or a folder
    out: Path
    work: Path
    end: float  # on time.monotonic()'s clock
    root: Path | None = None  # the folder of images, once it is there
    results: dict[str, Any] = field(default_factory=dict)
    step_end: float = 0.0

    def __post_init__(self) -> None:
        self.log = self.out / "gpu.log"
        self.server = processes.fork_server()

    def left(self) -> float:
        """Seconds that the current step has left."""
        return min(self.end, self.step_end) - time.monotonic()

    def take(self, step: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure one thing and write its result, or that it failed."""
        print(f"{step}: {name} …", flush=True)
        begin = time.monotonic()
        try:
            if self.left() <= 0:
                raise processes.Late("not reached: the time was up")
            result = dict(measure())
        except (processes.Failed, UserError) as error:
            result = {"failed": str(error)}
            print(f"  {error}", flush=True)
        self.results["steps"].setdefault(step, {})[name] = {**result, "took_s": round(time.monotonic() - begin, 2)}
        self.write()

    def failed(self) -> list[str]:
        """What failed or was not reached."""
        steps = self.results["steps"].items()
        return [f"{step}, {name}" for step, results in steps for name, one in results.items() if "failed" in one]

    def skip(self, step: str, name: str, why: str) -> None:
        self.results["steps"].setdefault(step, {})[name] = {"skipped": why}

    def write(self) -> None:
        write_json(self.out / "gpu.json", self.results)
        (self.out / "gpu.md").write_text(gpu_report.as_markdown(self.results), encoding="utf-8")

    def words(self, *more: str) -> list[str]:
        """Options of cxr.train for the images at hand."""
        data = ("data=folder", f"data.root={self.root}", f"cache_dir={self.work / 'cache'}")
        return [*data, *self.size.options, *more]

    def config(self, *more: str) -> Mapping[str, Any]:
        """The options of one run."""
        ((_, config),) = read_runs(self.words(*more))
        return config

    def contend(self, **spec: Any) -> dict[str, Any]:
        """One measurement by cxr.benchmarks.contenders."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            given = {"seconds": self.size.seconds, "warm_up": self.size.warm_up, "folder": folder, **spec}
            return processes.contend_forked(self.server, given, self.log, self.left())

    def train(self, *words: str) -> float:
        """Run cxr.train; the seconds it took."""
        return processes.run_command(["cxr.train", *self.words(*words)], self.log, self.left())


def unpacked(images: Path | None, folder: Path, number: int) -> Path:
    """The folder that holds images: that of a tar, a folder itself, or drawn ones. Raises UserError if it is no tar."""
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
