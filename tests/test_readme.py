"""Every command that the README shows runs, and every option that there is stands in it."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cxr import audit, evaluate, leaderboard, predict, report
from cxr.options.command_line import prepare, read_cells
from cxr.options.rules import RULES
from cxr.train import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"(?:^    |`)((?:python -m|make) [^`#\n]+?)(?:`|  +#.*)?$|`((?:python -m|make) [^`]+)`", README, re.M
)
COMMANDS = sorted({(a or b).strip() for a, b in COMMANDS})
# What other tests run: test_bench, test_slurm, test_ddp, test_search, test_every_network.
ELSEWHERE = ("cxr.bench", "launcher=slurm", "trainer=ddp", "hparams=optuna", "resnet34", "model=timm")
GRID = "python -m cxr.train -m model=cnn,resnet18 aug=on,off data=folder data.root=IMAGES"
# The same commands, on few small images and for one step.
FEWER = ("data.image_size=32", "trainer.max_epochs=1", "+trainer.limit_train_batches=1")


def make(*words):
    """What make prints, also where the tests themselves were started by make, which would make it talk of levels."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *words], cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made(target):
    """The Python command that a make target would run after the installation."""
    return (
        make("-n", "-o", ".venv/installed", *shlex.split(target)[1:]).strip().splitlines()[-1].replace(".venv/bin/", "")
    )


def test_the_readme_shows_commands():
    assert {"make sweep", "make test", "make board", "make seeds", "make lint"} <= set(COMMANDS)
    assert sum(c.startswith("python -m cxr.") for c in COMMANDS) >= 5 and GRID in COMMANDS


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make")])
def test_python_command(command, run, drawn, cache, tmp_path, monkeypatch):
    if "launcher=slurm" in command and not shutil.which("sbatch"):
        pytest.skip("there is no Slurm here")
    monkeypatch.chdir(tmp_path)
    if any(module in command for module in ("cxr.predict", "cxr.leaderboard", "cxr.report", "cxr.evaluate")):
        words = ("-m", "aug=on", "data=folder", f"data.root={drawn}", "name=NAME", "model.widths=[4,4]", *FEWER)
        assert run(main, *words, f"cache_dir={cache}")[0] == 0
        command = command.replace("RUN/", "runs/NAME/cnn_aug-on_seed-0/")
        command = command.replace("IMAGE_OR_FOLDER", str(drawn / "val")).replace("OTHER", str(drawn / "test"))
    # More seeds take time and show nothing more.
    command = command.replace("seed=0,1,2", "seed=0" if "model=cnn,resnet18" in command else "seed=0,1")
    words = shlex.split(command.replace("IMAGES", str(drawn)))[3:]
    if "experiment=best" in command:  # tests/test_search.py runs it, with what a search left
        return
    if "data.table=" in command:
        images = [f"{path.relative_to(drawn)},{path.parent.name}" for path in drawn.rglob("*.*g")]
        (tmp_path / "images.csv").write_text("\n".join(["file,label", *images]))
        words.append(f"data.root={drawn}")
    # One grid is trained to its report; the others differ from it in options, which are checked.
    grid = "model=cnn,resnet18" in command and command != GRID
    if grid or any(word in command for word in ELSEWHERE):
        assert read_cells([word for word in words if "=" in word])
        return
    if "limit_train_batches" in command:
        words = [word for word in words if "limit_train_batches" not in word]
    modules = {
        "cxr.train": main,
        "cxr.predict": predict.main,
        "cxr.leaderboard": leaderboard.main,
        "cxr.report": report.main,
        "cxr.audit": audit.main,
        "cxr.evaluate": evaluate.main,
    }
    module = modules[command.split()[2]]
    if module in (audit.main, evaluate.main):
        words.append(f"cache_dir={cache}")
    if module is main and "--help" not in words:
        small = [] if "data=" in command else ["data.images=120"]
        words = [*words, *FEWER, *small, f"cache_dir={cache}"]
    assert run(module, *words)[0] == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make") and "sweep" not in c])
def test_make_target(command, drawn, tmp_path, monkeypatch):
    """Each is one command that a person could have typed, and its options are allowed."""
    monkeypatch.chdir(tmp_path)
    if "slurm" in command and not shutil.which("sbatch"):
        pytest.skip("there is no Slurm here")
    line = made(command.replace("DIR", str(drawn)))
    if "cxr.train" in line:
        prepare(shlex.split(line.partition("cxr.train ")[2]), "config")
    elif "cxr.bench" in line or "cxr.audit" in line:
        read_cells([word for word in shlex.split(line) if "=" in word])
    else:
        assert line.split()[0] in ("python", "ruff", "rm")


def test_clean_cache_removes_what_cxr_made_and_nothing_else(tmp_path):
    for name in ("store-32px-1/2", "phantom-400-0-3", "copies-1", "giveaways-1", "audit-1", "known-1", "mine"):
        (tmp_path / "my images" / name).mkdir(parents=True)
    (tmp_path / "my").mkdir()
    make("clean-cache", f"CACHE={tmp_path}/my images")
    assert [p.name for p in (tmp_path / "my images").iterdir()] == ["mine"] and (tmp_path / "my").is_dir()


def test_make_sweep_with_and_without_a_folder():
    assert made("make sweep") == "python -m cxr.train -m model=cnn,resnet18 aug=on,off"
    assert shlex.split(made("make sweep DATA='/a b'"))[-1] == "data.root=/a b"
    assert {line.split()[0] for line in make().splitlines()} == {
        *("help", "install", "sweep", "capstone", "seeds", "parallel", "audit", "report", "bench", "scale"),
        *("board", "test", "faults", "lint", "clean", "clean-cache"),
        *("slurm", "ddp", "search", "networks", "balance", "long", "gpu", "gpu-folder"),
    }


def test_every_option_stands_in_the_readme():
    table = README[README.index("| option |") : README.index("Your own YAML")] + "ckpt source out"  # predict's own
    table += " data.root data.source"  # what data=folder asks for, and what data=… sets
    assert [key for key in RULES if not re.search(rf"\b{re.escape(key)}\b", table)] == []
