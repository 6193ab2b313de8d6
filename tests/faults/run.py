"""make faults: kill, stop, starve and mislead real runs, and see that nothing is lost.

Prints what was tried, what survived and what was lost; ends with 1 where anything was. Everything random is drawn from
--seed. Work is dealt to two lanes, processes of their own that fork a run a fault.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from bad_images import BAD_IMAGES, USED  # noqa: E402
from damaged import DAMAGE  # noqa: E402
from same import assert_same_run  # noqa: E402
from victim import PHASES, Fault, run, save_often  # noqa: E402

import cxr.jobs.run  # noqa: E402
from cxr.data.phantom import draw_phantom  # noqa: E402
from cxr.files.writing import read_json, read_table  # noqa: E402
from cxr.reporting.leaderboard import write_leaderboard  # noqa: E402
from cxr.training.checkpoints import BEFORE, LAST, DurableCheckpointIO, LastCheckpoint, damage  # noqa: E402
from cxr.training.signals import SIGNALS  # noqa: E402

RUNS = ("cnn_aug-on_seed-0", "cnn_aug-off_seed-0")
EARLY = ("imports", "start-up", "store build", "search for copies")
LATE = tuple(phase for phase in PHASES if phase not in EARLY)
TIMES = ("seconds", "images_per_s")  # columns of the leaderboard that no two runs share


class Lane:
    """What one lane does: each family of faults is a function of it, and `tell` is how it reports."""

    def __init__(self, root: Path, number: int, seed: int) -> None:
        self.root, self.place, self.rng = root, root / f"lane-{number}", random.Random(seed * 100 + number)
        self.images, self.reference, self.count = root / "images", root / "reference", 0
        self.place.mkdir(exist_ok=True)

    def words(self, folder: Path, cache: Path, *more: str) -> list[str]:
        """The command of a sweep of two runs that takes seconds."""
        network = ("data.image_size=32", "model.hidden=16", "model.widths=[4,8,8]", "trainer.precision=32-true")
        data = ("data=folder", f"data.root={self.images}", f"cache_dir={cache}")
        sweep = ("-m", "aug=on,off", "trainer.max_epochs=3", "optim.lr=0.003")
        return [*sweep, *network, *data, f"hydra.sweep.dir={folder}", *more]

    def new(self) -> tuple[Path, Path]:
        """An output folder and a cache that nobody used."""
        self.count += 1
        return self.place / f"sweep-{self.count}", self.place / f"cache-{self.count}"

    def log(self) -> Path:
        return self.place / "log"

    def tell(self, family: str, what: str, problem: str, **more: Any) -> None:
        print(json.dumps({"family": family, "what": what, "problem": problem, **more}), flush=True)

    def kills(self, chains: int) -> None:
        """SIGKILL at a random moment of a random phase, again and again, until the sweep is done all the same."""
        for _ in range(chains):
            folder, cache = self.new()
            for phase in (*self.rng.sample(EARLY, len(EARLY)), *self.rng.sample(LATE, len(LATE))):
                done = [name for name in RUNS if read_json(folder / name / "status.json").get("status") == "done"]
                fault = Fault.draw(phase, signal.SIGKILL, self.rng)
                out = run(self.words(folder, cache), self.log(), fault, save_often(self.rng))
                if out.code == 0:  # that phase did not come any more
                    shutil.rmtree(folder)
                    continue
                problem = "" if out.code == -signal.SIGKILL else f"exit code {out.code}: {out.said[-300:]}"
                problem = problem or self.lost(folder, done)
                self.tell("kill -9", phase, problem, **asdict(out) | {"said": ""}, fault=asdict(fault))
            self.finish("kill -9: the sweep in the end", "all phases", folder, cache)

    def signals(self, numbers: Sequence[int]) -> None:
        """Each signal that asks to stop, twice, in four phases."""
        for number in numbers:
            folder, cache = self.new()
            for phase in ("start-up", "store build", "training", "test"):
                fault = Fault.draw(phase, number, self.rng, times=2)
                fault.call = 1  # that comes for certain
                if phase == "store build":
                    shutil.rmtree(cache, ignore_errors=True)
                out = run(self.words(folder, cache), self.log(), fault, save_often(self.rng))
                name = signal.Signals(number).name
                problem = "" if out.code == 128 + number else f"exit code {out.code}: {out.said[-300:]}"
                if "Traceback" in out.said or f"cxr: stopped by {name}" not in out.said:
                    problem = problem or f"it said: {out.said[-300:]}"
                self.tell("signals", f"{name} × {phase}", problem, hit=out.hit, pid=out.pid)
            self.finish("signals: the sweep in the end", signal.Signals(number).name, folder, cache)

    def checkpoints(self) -> None:
        """A last checkpoint that is none, after two generations were written."""
        halted, cache = self.new()
        fault = Fault("validation", signal.SIGTERM, 1, 3, 0.0)
        run(
            self.words(halted, cache),
            self.log(),
            fault,
            lambda: setattr(LastCheckpoint, "EPOCH_SECONDS", 0),
        )
        for name, spoil in DAMAGE.items():
            folder, _ = self.new()
            shutil.copytree(halted, folder)
            checkpoints = folder / RUNS[0] / "checkpoints"
            problem = "" if (checkpoints / BEFORE).exists() else "there were no two generations"
            spoil(checkpoints / LAST)
            problem = problem or self.finish("", name, folder, cache)
            if (checkpoints / "canary").exists():
                problem = "the pickle was run"
            if f"{LAST} cannot be used" not in (folder / RUNS[0] / "train.log").read_text():
                problem = problem or "nobody said that it was damaged"
            self.tell("bad checkpoints", name, problem)

    def disks(self) -> None:
        """A disk that is full from a moment on: a small file system of its own, filled by somebody else."""
        moments: dict[str, tuple[Any, str, int]] = {
            "store build": (cxr.data.store, "fill_store", 1),
            "checkpoint write": (DurableCheckpointIO, "save_checkpoint", 2),
            "test": (cxr.jobs.run, "test_run", 1),
        }
        for moment, (owner, name, call) in moments.items():
            disk = self.place / f"disk-{moment.replace(' ', '-')}"
            with small_disk(disk) as mounted:
                if not mounted:
                    self.tell("full disk", moment, "", skipped="a file system cannot be mounted here")
                    continue
                out = run(self.words(disk / "s", disk / "cache"), self.log(), None, filler(disk, owner, name, call))
                problem = "" if out.code == 1 else f"exit code {out.code}: {out.said[-300:]}"
                if "No space left on device" not in out.said or "Traceback" in out.said:
                    problem = problem or f"it said: {out.said[-400:]}"
                (disk / "filler").unlink(missing_ok=True)
                problem = problem or self.lost(disk / "s", [])
                problem = self.finish("", moment, disk / "s", disk / "cache") or problem
                self.tell("full disk", moment, problem)

    def side_by_side(self) -> None:
        """launcher=parallel: a run's process is killed, then a worker of the pool; then the launching process."""
        for victim in ("run", "worker", "launcher"):
            folder, cache = self.new()
            words = self.words(folder, cache, "launcher=parallel", "n=2")
            killer = threading.Thread(target=kill_one, args=(folder, victim, self.rng.uniform(0, 1)))
            with self.log().open("w") as out:
                process = subprocess.Popen([sys.executable, "-m", "cxr.train", *words], stdout=out, stderr=out)
                killer.start()
                code = process.wait()
                killer.join()
            time.sleep(1)  # until what it started has noticed
            left = [pid for pid in (status_of(folder, name).get("pid") for name in RUNS) if pid and alive(pid)]
            rows = {row["run"]: row["status"] for row in write_leaderboard(folder)}
            problem = f"processes {left} live on" if left else "" if code else "exit code 0"
            if victim == "run" and sorted(rows.values()) != ["done", "failed"]:
                problem = problem or f"the leaderboard says {rows}"
            self.tell("killed in a pool", victim, problem, code=code, rows=rows)
            out = subprocess.run([sys.executable, "-m", "cxr.train", *words], capture_output=True, text=True)
            problem = "" if out.returncode == 0 else f"exit code {out.returncode}: {out.stderr[-300:]}"
            try:
                for name in RUNS:
                    assert_same_run(folder / name, self.root / "parallel" / name)
            except AssertionError as error:
                problem = problem or f"not the same: {error}"
            self.tell("killed in a pool: the sweep in the end", victim, problem)

    def bad_images(self) -> None:
        """Every kind of bad image among good ones, in a real run."""
        images = self.place / "images"
        shutil.copytree(self.images, images)
        for number, (_, odd) in enumerate(BAD_IMAGES.items()):
            (images / "train" / "NORMAL" / f"k{number}").mkdir()
            odd.write(images / "train" / "NORMAL" / f"k{number}" / odd.name)
        folder, cache = self.new()
        words = [f"data.root={images}" if word.startswith("data.root=") else word for word in self.words(folder, cache)]
        out = run(words, self.log())
        rejected = {row["file"]: row["reason"] for row in read_table(folder / RUNS[0] / "rejected.csv")}
        used = {row["file"] for row in read_table(folder / RUNS[0] / "split.csv")}
        for number, (kind, odd) in enumerate(BAD_IMAGES.items()):
            under = f"train/NORMAL/k{number}/"
            is_used = any(file.startswith(under) for file in used)
            why = [reason for file, reason in rejected.items() if file.startswith(under)]
            right = is_used if odd.expected == USED else any(odd.expected in reason for reason in why)
            problem = "" if right and out.code == 0 else f"exit code {out.code}, used: {is_used}, rejected: {why}"
            self.tell("bad images", kind, problem)

    def lost(self, folder: Path, done: Sequence[str]) -> str:
        """What a fault destroyed of what was there before, or ""."""
        for path in folder.glob("*/checkpoints/*.ckpt"):
            if why := damage(path):
                return f"{path.name} is damaged: {why}"
        for name in done:
            if read_json(folder / name / "status.json").get("status") != "done":
                return f"{name} was done, and is not any more"
        for path in folder.glob("**/*.json"):
            read_json(path)  # raises what is wrong with it
        return ""

    def finish(self, family: str, what: str, folder: Path, cache: Path) -> str:
        """Give the same command once more: it has to end well, and as if nothing had ever happened."""
        out = run(self.words(folder, cache), self.log())
        problem = "" if out.code == 0 else f"exit code {out.code}: {out.said[-300:]}"
        try:
            for name in RUNS:
                assert_same_run(folder / name, self.reference / name)
            boards = [read_table(sweep / "leaderboard.csv") for sweep in (folder, self.reference)]
            for ours, theirs in zip(*(sorted(rows, key=lambda row: row["run"]) for rows in boards), strict=True):
                assert {**ours, **dict.fromkeys(TIMES)} == {**theirs, **dict.fromkeys(TIMES)}, "leaderboard.csv"
        except (AssertionError, OSError) as error:
            problem = problem or f"not the same: {error}"
        if family:
            self.tell(family, what, problem)
        return problem


def status_of(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name / "status.json")


def alive(pid: int) -> bool:
    """Whether a process is there and not only waits to be read out."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill_one(folder: Path, victim: str, delay: float) -> None:
    """Wait until a run trains in a process of its own, and kill that, its worker of the pool, or the launcher."""
    while not list(folder.glob(f"{RUNS[0]}/checkpoints/images.npz")):
        time.sleep(0.02)
    time.sleep(delay)
    pid = status_of(folder, RUNS[0])["pid"]
    for _ in range({"run": 0, "worker": 2, "launcher": 3}[victim]):  # a run is forked by a server of the worker's
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(pid, signal.SIGKILL)


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A file system of 40 MB; gives whether it could be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def filler(disk: Path, owner: Any, name: str, call: int) -> Callable[[], None]:
    """Fill a disk when a function is called for the n-th time; nobody can know that beforehand."""

    def prepare() -> None:
        function, calls = getattr(owner, name), [0]

        def wrapped(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                with (disk / "filler").open("wb", buffering=0) as file:
                    try:
                        while file.write(bytes(4096)):
                            pass
                    except OSError:
                        pass
            return function(*arguments, **options)

        setattr(owner, name, wrapped)
        shutil.disk_usage = lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40)

    return prepare


LANES: tuple[Sequence[Callable[[Lane], None]], ...] = (
    (lambda lane: lane.kills(5), lambda lane: lane.signals(SIGNALS[:2]), Lane.checkpoints),
    (
        lambda lane: lane.kills(4),
        lambda lane: lane.signals(SIGNALS[2:]),
        Lane.disks,
        Lane.side_by_side,
        Lane.bad_images,
    ),
)


def prepare(root: Path) -> None:
    """The images, and the sweeps that nothing happens to."""
    draw_phantom(root / "images", images=160, seed=3)
    lane = Lane(root, 9, 0)
    for name, more in (("reference", ()), ("parallel", ("launcher=parallel", "n=2"))):
        words = lane.words(root / name, root / "cache", *more)
        subprocess.run([sys.executable, "-m", "cxr.train", *words], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for every fault, what it hit, and what came of it")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.lane is not None:
        lane = Lane(told.root, told.lane, told.seed)
        for family in LANES[told.lane]:
            family(lane)
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cxr-faults-") as place:
        prepare(Path(place))
        again = [sys.executable, __file__, "--seed", str(told.seed), "--root", place, "--lane"]
        lanes = [subprocess.Popen([*again, str(n)], stdout=subprocess.PIPE, text=True) for n in range(len(LANES))]
        found: list[dict[str, Any]] = []
        readers = [threading.Thread(target=follow, args=(lane, found)) for lane in lanes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        broken = [lane.wait() for lane in lanes]
    if told.json:
        told.json.write_text(json.dumps(found, indent=1) + "\n")
    raise SystemExit(report(found, time.monotonic() - begin) or any(broken))


def follow(lane: subprocess.Popen, found: list[dict[str, Any]]) -> None:
    for line in lane.stdout or ():
        fault = json.loads(line)
        found.append(fault)
        hit = f" ({fault['hit']}, process {fault['pid']})" if fault.get("hit") else ""
        end = fault["problem"] or (f"not tried: {fault['skipped']}" if "skipped" in fault else "survived")
        print(f"{fault['family']}, {fault['what']}{hit}: {end}", flush=True)


def report(found: Sequence[dict[str, Any]], seconds: float) -> bool:
    """Print the table; True where something was lost."""
    print("\n| faults | tried | survived | lost or wrong |\n| --- | ---: | ---: | ---: |")
    for family in dict.fromkeys(fault["family"] for fault in found):
        own = [fault for fault in found if fault["family"] == family and "skipped" not in fault]
        lost = sum(bool(fault["problem"]) for fault in own)
        print(f"| {family} | {len(own)} | {len(own) - lost} | {lost} |")
    kills = [fault for fault in found if fault["family"] == "kill -9"]
    inside = Counter(fault["what"] for fault in kills if fault["hit"] == "inside")
    print(f"\n{sum(inside.values())} of {len(kills)} kills hit the phase that they were meant for: ", end="")
    print(", ".join(f"{phase} {number}" for phase, number in sorted(inside.items())))
    print(f"{seconds / 60:.1f} minutes")
    return any(fault["problem"] for fault in found)


if __name__ == "__main__":
    main()
