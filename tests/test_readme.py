"""The READMEs: their commands run, every option is documented with its default, and their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cxr import audit, evaluate, export, leaderboard, predict, report
from cxr.options.command_line import read_command, read_options, read_runs
from cxr.options.rules import RULES, flatten
from cxr.train import list_hospitals, main

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
ROOMS = ("conf", "cxr", "cxr/data", "cxr/evaluation", "cxr/benchmarks", "cxr/serving", "tests/faults")
READMES = [
    ROOT / "README.md",
    *(ROOT / room / "README.md" for room in ROOMS),
    ROOT / "cxr/evaluation/OTHER_HOSPITALS.md",
    ROOT / "cxr/models/EXPORT.md",
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in READMES}
# Lines that are indented by four, up to a comment, and what stands between backticks.
COMMAND = re.compile(r"^    ((?:python -m|make) [^`#\n]+?)(?:  +#.*)?$|`((?:python -m|make) [^`\n]+)`", re.M)
COMMANDS = sorted({(line or inline).strip() for text in TEXTS.values() for line, inline in COMMAND.findall(text)})
LINK = re.compile(r"\]\(([^)\s]*)\)")
# A row of conf/README.md: its option, and the cell with its defaults.
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) \| ", re.M)
# Other tests run these (test_bench, test_slurm, test_ddp, test_search, test_every_network), or only a GPU does.
ELSEWHERE = ("cxr.bench", "launcher=slurm", "trainer=ddp", "trainer=gpu", "hparams=optuna", "resnet34", "model=timm")
MEASURE = ("make", "python -m cxr.benchmarks.", "python -m pytest")  # not by this test
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


def test_the_readmes_show_commands():
    assert {"make sweep", "make test", "make board", "make seeds", "make lint"} <= set(COMMANDS)
    assert sum(c.startswith("python -m cxr.") for c in COMMANDS) >= 5 and GRID in COMMANDS


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(MEASURE)])
def test_python_command(command, run, drawn, cache, tmp_path, monkeypatch):
    if "launcher=slurm" in command and not shutil.which("sbatch"):
        pytest.skip("there is no Slurm here")
    monkeypatch.chdir(tmp_path)
    if any(f"cxr.{name}" in command for name in ("predict", "export", "demo", "leaderboard", "report", "evaluate")):
        words = ("-m", "aug=on", "data=folder", f"data.root={drawn}", "name=NAME", "model.widths=[4,4]", *FEWER)
        assert run(main, *words, f"cache_dir={cache}")[0] == 0
        command = re.sub(r"\bRUN\b", "runs/NAME/cnn_aug-on_seed-0", command)
        command = command.replace("IMAGE_OR_FOLDER", str(drawn / "val"))
        command = command.replace("OTHER", str(drawn / "test")).replace("OURS", str(drawn / "test"))
    # More seeds take time and show nothing more.
    command = command.replace("seed=0,1,2", "seed=0" if "model=cnn,resnet18" in command else "seed=0,1")
    words = shlex.split(command.replace("IMAGES", str(drawn)).replace("OURS", str(drawn)))[3:]
    if "cxr.demo" in command:  # tests/test_demo.py runs it
        assert read_options(words, "demo")
        return
    if "experiment=best" in command:  # tests/search/test_search.py runs it, with what a search left
        return
    if "data.table=" in command:
        paths = sorted(drawn.rglob("*.*g"))
        images = [f"{path.relative_to(drawn)},{path.parent.name},{'AB'[n % 2]}" for n, path in enumerate(paths)]
        (tmp_path / "images.csv").write_text("\n".join(["file,label,hospital", *images]))
        words.append(f"data.root={drawn}")
    # One grid is trained to its report; the others differ from it in options, which are checked.
    grid = "model=cnn,resnet18" in command and command != GRID
    if grid or any(word in command for word in (*ELSEWHERE, "worst_hospital", "data.root=DIR")):
        options = [word for word in words if "=" in word]
        assert (
            read_runs(options) if "cxr.bench" in command else read_command(["-m", *options], "config", list_hospitals)
        )
        return
    if "limit_train_batches" in command:
        words = [word for word in words if "limit_train_batches" not in word]
    modules = {
        "cxr.train": main,
        "cxr.predict": predict.main,
        "cxr.export": export.main,
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
        read_command(shlex.split(line.partition("cxr.train ")[2]), "config")
    elif "cxr.bench" in line or "cxr.audit" in line:
        read_runs([word for word in shlex.split(line) if "=" in word])
    else:
        assert line.split()[0] in ("python", "ruff", "rm") or "bash cxr/benchmarks/gpu.sh" in line


def test_clean_cache_removes_what_cxr_made_and_nothing_else(tmp_path):
    made = ("store-32px-1/2", "phantom-400-0-3", "copies-1", "shortcuts-1", "audit-1", "known-1", ".building-1")
    for name in (*made, "mine"):
        (tmp_path / "my images" / name).mkdir(parents=True)
    (tmp_path / "my").mkdir()
    make("clean-cache", f"CACHE={tmp_path}/my images")
    assert [p.name for p in (tmp_path / "my images").iterdir()] == ["mine"] and (tmp_path / "my").is_dir()


def test_make_sweep_with_and_without_a_folder():
    assert made("make sweep") == "python -m cxr.train -m model=cnn,resnet18 aug=on,off"
    assert shlex.split(made("make sweep DATA='/a b'"))[-1] == "data.root=/a b"
    assert {line.split()[0] for line in make().splitlines()} == {
        *("help", "install", "sweep", "capstone", "seeds", "parallel", "audit", "report", "bench", "scale", "demo"),
        *("board", "test", "faults", "lint", "clean", "clean-cache"),
        *("slurm", "ddp", "search", "networks", "balance", "hospitals", "long", "gpu", "gpu-folder"),
    }


def read_defaults():
    """{option: its values in the YAML files that are no recipes}, without those that are computed."""
    defaults = {}
    for path in CONF.rglob("*.yaml"):
        folder = path.relative_to(CONF).parts[0]
        if folder == "experiment" or "ranges" in path.parts:
            continue
        group = folder if folder in ("data", "model", "aug", "optim", "trainer") else ""
        options = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key, value in flatten(options, f"{group}." if group else ""):
            if "${" not in str(value):
                defaults.setdefault(key, []).append(value)
    return defaults


def test_every_option_is_documented_with_its_defaults():
    documented = dict(ROW.findall(TEXTS[CONF / "README.md"]))
    assert [key for key in RULES if key not in documented] == []
    wrong = []
    for key, values in read_defaults().items():
        cell = documented.get(key, "")
        shown = [yaml.safe_load(value) for value in re.findall(r"`([^`]+)`", cell)]
        for value in values if key in RULES else []:
            if not (cell.startswith("required") if value == "???" else value in shown):
                wrong.append((key, value, cell))
    assert wrong == []


@pytest.mark.parametrize("group", [path.name for path in CONF.iterdir() if path.is_dir()])
def test_every_choice_is_documented(group):
    row = re.search(rf"^\| `{group}` \|.*$", TEXTS[CONF / "README.md"], re.M)[0]
    assert [path.stem for path in (CONF / group).glob("*.yaml") if f"`{path.stem}`" not in row] == []


def test_the_readme_takes_five_minutes():
    assert len(TEXTS[ROOT / "README.md"].encode()) <= 12 * 1024


def anchors(path):
    """The anchors that GitHub makes of a file's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    links = [link.partition("#") for link in LINK.findall(TEXTS[path]) if "://" not in link]
    assert [file for file, _, _ in links if file and not (path.parent / file).exists()] == []
    targets = [(path.parent / file if file else path, anchor) for file, _, anchor in links if anchor]
    assert [anchor for target, anchor in targets if anchor not in anchors(target)] == []
