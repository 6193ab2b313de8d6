"""Wrong options get one line, before torch is imported; paths are taken as they are typed."""

import importlib
import os
import signal
import subprocess
import sys
import time

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cxr.errors import UserError
from cxr.jobs.exit_codes import fail
from cxr.jobs.output_folder import take_folder
from cxr.options.command_line import read_command, read_runs
from cxr.options.composing import CONF, config_groups
from cxr.options.grammar import quote
from cxr.options.rules import RULES, flatten
from cxr.train import main
from cxr.training.signals import SIGNALS

SETS = [path.stem for path in (CONF / "data").glob("*.yaml") if "\nroot: ???" in path.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write to runs/ below the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "model=vgg",
            "model=vgg: unknown; choose cnn or densenet121 or efficientnet_b0 or resnet18 or",
        ),
        ("model=null", "model=null: unknown"),
        ("experiment=best", "experiment=best: unknown; choose capstone2022 or quick"),
        ("aug=true", "aug=true: unknown; choose off or on"),
        ("-m aug=on,of", "aug=of: unknown; choose off or on"),
        ("aug=on,off", "several values need -m"),
        ("optim.lr=abc", "optim.lr=abc: must be a number above 0"),
        ("optim.lr=-1", "optim.lr=-1: must be a number above 0"),
        ("optim.lr=nan", "optim.lr=nan: must be a number above 0"),
        ("-m optim.lr=0.1,abc", "optim.lr=abc: must be a number above 0"),
        ("seed=1.5", "seed=1.5: must be a whole number from 0"),
        ("seed=", "seed=: must be"),
        ("data.split=random", "data.split=random: must be pooled, given, folds or hospital"),
        ("data.split=folds data.fold=5", "data.fold=5: data.folds=5 folds are numbered from 0"),
        ("data.fold=1", "data.fold=1: only with data.split=folds"),
        ("data.fold=all", "data.fold=all: trains a run for each fold, and needs -m"),
        ("data.val_fraction=1", "data.val_fraction=1: must be"),
        ("screen.sensitivity=1", "screen.sensitivity=1: must be a number between 0 and 1"),
        ("screen.confidence=95", "screen.confidence=95: must be a number between 0 and 1"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: must be a whole number from 1"),
        ("trainer.precision=8", "trainer.precision=8: must be auto"),
        ("model.widths=[8,x]", "model.widths=[8, 'x']: must be a list"),
        ("model=resnet18 model.weights=/no/such", "model.weights=/no/such: must be null, imagenet or the path"),
        ("model.weights=imagenet", "only with model=densenet121 or model=efficientnet_b0 or"),
        ("model=timm", "model.name is missing: give model.name=a network of timm, such as convnext_tiny"),
        ("data=folder", "data.root is missing"),
        ("data=folder data.root=/no/such", "data.root=/no/such: no such folder"),
        ("data=folder data.root=.", "no images found"),
        ("data.root=.", "data.root=.: only with data=chexpert or data=covid_radiography or data=folder or"),
        ("optm.lr=1", "did you mean optim.lr?"),
        ("lr=1", "did you mean optim.lr?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("optimizer=adam", "did you mean optim?"),
        ("+sead=1", "sead=1: no such option"),
        ("trainer.limit_val_batches=2", "write +trainer.limit_val_batches=2"),
        ("+trainer.limit_va_batches=2", "did you mean +trainer.limit_val_batches?"),
        ("~trainer", "options cannot be removed"),
        ("data.batch_size=[1", "is not option=value"),
        ("word", "is not option=value"),
        ("name=../elsewhere", "name=../elsewhere: must be the name of a folder"),
        ("name=..", "name=..: must be the name of a folder"),
        ("hydra.run.dir=/proc/none", "/proc/none: cannot be created"),
        ("data=folder data.root=", "data.root=: must be a folder"),
        ("trainer.devices=2", "several devices for one run need trainer=ddp"),
        ("+trainer.logger=false", "cxr sets this argument"),
        ("-m experiment=quick,null", "experiment=null: unknown"),
        ("seed=4294967296", "must be a whole number from 0 to 4294967295"),
        ("data.source=x", "data.source=x: must be"),
        ("n=2", "n=2: only with launcher=parallel"),
        ("-m launcher=parallel n=0", "n=0: must be a whole number from 1"),
        ("launcher=parallel", "launcher=parallel is for several runs and needs -m"),
        ("compile=auto", "compile=auto: must be true or false"),
        ("data.resident=yes", "data.resident=yes: must be auto, true or false"),
        ("data.num_workers=-1", "must be auto or a whole number from 0"),
        ("-m seed=1,1", "share the folder cnn_aug-on_seed-1"),
        ("-m --cfg job", "--cfg, --info: these show one run; leave out -m"),
        ("slurm.time=3", "slurm.time=3: only with launcher=slurm"),
        ("aug=on,off trainer.max_epochs=0 -m", "trainer.max_epochs=0: must be a whole number from 1"),
        ("data=table data.table=/no/such.csv", "data.table=/no/such.csv: must be the path of a CSV or parquet file"),
    ],
)
def test_wrong_options_get_one_line(run, words, says):
    code, out, err = run(main, *words.split())
    assert code == 2 and out == ""
    assert err.startswith("cxr: ") and err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("words", [["--help"], ["optim.lr=abc"], ["-m", "model=cnn,vgg"]])
def test_answers_without_importing_what_takes_long(words):
    code = (
        "import sys; from cxr.train import main; sys.argv[1:] = sys.argv[2:]\n"
        "try: main()\nexcept SystemExit: pass\nassert not {'torch', 'scipy.stats', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "-", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "optim" in done.stdout + done.stderr or "model" in done.stderr


def test_any_trainer_argument_can_be_passed_on():
    command = read_command(["+trainer.limit_val_batches=2", "name=x"], "config")
    assert "+trainer.limit_val_batches=2" in command.argv


def test_every_choice_in_conf_composes_to_allowed_values(tmp_path):
    """Each YAML file, alone and with each experiment, passes the rules; and each rule is somebody's option."""
    seen, table = set(), tmp_path / "t.csv"
    table.touch()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = config_groups([])
        choices = [f"{group}={choice}" for group, names in groups.items() for choice in names]
    assert len(choices) == len(list(CONF.glob("*/*.yaml")))
    for number, choice in enumerate(choices):
        more = [] if choice.startswith("experiment") else ["experiment=quick"]
        needed = {
            "model=timm": "model.name=resnet18",
            "data=table": f"data.table={table}",
            **{f"data={name}": "data.root=x" for name in SETS},
        }
        root = [needed[choice]] if choice in needed else []
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [choice, *more, *root, f"name=n{number}"])
        for key, value in flatten(config):
            if key in RULES:
                seen.add(key)
                value = list(value) if hasattr(value, "_content") else value
                assert RULES[key].holds(value), (choice, key, value)
    assert seen | {"ckpt", "source", "out", "heatmaps", "int8", "calibrate_on", "host", "port"} == set(RULES)


@pytest.mark.parametrize(
    "text",
    [
        "a=b",
        "x/COVID19(277).jpg",
        "c[1],{2}",
        "한글 이름",
        'it\'s "quoted"',
        "a\\b\\",
        "\\'",
        "${x} ${oc.env:HOME}",
        " lead",
        "#$%&@!~:;|<>?*",
    ],
)
def test_paths_are_taken_as_typed(text, tmp_path):
    command = read_command([f"hydra.run.dir={tmp_path}/{text}", "cache_dir=" + text], "config")
    assert str(command.folder) == f"{tmp_path}/{text}"
    take_folder(command).close()
    assert command.folder.is_dir()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", [f"cache_dir={quote(text)}"]).cache_dir == text


def test_a_used_folder_is_refused_unless_it_can_be_gone_on_with(tmp_path):
    runs = tmp_path / "runs"
    (runs / "theirs").mkdir(parents=True)
    (runs / "theirs" / "notes.txt").write_text("mine")
    for words in (["name=theirs"], ["-m", "aug=on,off", "name=theirs"]):
        with pytest.raises(UserError, match="theirs: this folder is already used"):
            take_folder(read_command(words, "config"))
    assert [path.name for path in (runs / "theirs").iterdir()] == ["notes.txt"]
    take_folder(read_command(["name=mine"], "config")).close()
    (runs / "mine" / "status.json").write_text("{}")
    take_folder(read_command(["name=mine"], "config")).close()
    for words, says in {
        ("name=mine", "resume=never"): "already used",
        ("-m", "aug=on,off", "name=mine"): "holds one run",
        ("hydra.run.dir=runs", "aug=on"): "holds a sweep",
    }.items():
        with pytest.raises(UserError, match=says):
            take_folder(read_command(list(words), "config"))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("command", "first"), [("train", "read_command"), ("predict", "read_options")])
def test_a_signal_during_start_up_has_its_exit_code(run, monkeypatch, number, command, first):
    module = importlib.import_module(f"cxr.{command}")

    def interrupted(*_):
        try:
            os.kill(os.getpid(), number)
            time.sleep(9)
        except KeyboardInterrupt as error:
            os.kill(os.getpid(), number)  # a second one changes nothing
            raise UserError("what a library makes of it") from error

    monkeypatch.setattr(module, first, interrupted)
    handler = signal.getsignal(number)
    code, out, err = run(module.main)
    assert (code, out, err) == (128 + number, "", f"cxr: stopped by {signal.Signals(number).name}\n")
    assert signal.getsignal(number) == handler
    assert f"{128 + number}" in (CONF.parent / "README.md").read_text()


def test_nohup_is_respected(run, monkeypatch):
    module, before = importlib.import_module("cxr.train"), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(
        module, "read_command", lambda *_: os.kill(os.getpid(), signal.SIGHUP) or fail(UserError("went on"))
    )
    try:
        assert run(module.main) == (2, "", "cxr: went on\n")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_processes_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.jobs.output_folder.PATIENCE", 0.1)
    held = take_folder(read_command(["-m", "aug=on,off", "name=mine"], "config"))
    for words in (["-m", "aug=on,off", "name=mine"], ["hydra.run.dir=runs/mine/cnn_aug-on_seed-0"]):
        with pytest.raises(UserError, match="another process is working in it"):
            take_folder(read_command(words, "config"))
    held.close()
    take_folder(read_command(["-m", "aug=on,off", "name=mine"], "config")).close()


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        ("optim.lr=0.1", "optim.lr=0.2", "mine: began with optim.lr=0.1, now 0.2; give the same options to resume"),
        ("", "+trainer.gradient_clip_val=1", "began with trainer.gradient_clip_val=null, now 1"),
        ("seed=1", "seed=2 data.split_seed=3", "began with data.split_seed=0, now 3 (and 1 other option)"),
        ("-m aug=on,off", "-m aug=on,off optim.lr=0.2", "cnn_aug-off_seed-0: began with optim.lr=0.002, now 0.2"),
        ("-m aug=on,off optim.lr=0.2", "-m aug=on,off", "optim.lr=0.2, now 0.002"),
        ("-m aug=on,off", "-m aug=on seed=0,1", "cnn_aug-off_seed-0: began with aug.crop=0, now 0.1"),
        ("-m seed=0,1", "-m seed=0,1,2", ""),
        ("-m model=cnn,resnet18", "-m model=resnet18,cnn", ""),
        ("", "cache_dir=elsewhere isolate=true report.lang=ko data.num_workers=2", ""),
    ],
)
def test_a_resume_with_other_options_is_refused_with_the_difference(tmp_path, first, then, says):
    folder = tmp_path / "runs" / "mine"
    command = [*first.split(), "name=mine"]
    take_folder(read_command(command, "config")).close()
    for choices, options in read_runs([word for word in command if word != "-m"]):
        name = f"{choices['model']}_aug-{choices['aug']}_seed-{options['seed']}" if "-m" in command else "."
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "status.json").write_text("{}")
        OmegaConf.save({"choices": choices, **options}, folder / name / "config.yaml")
    if not says:
        take_folder(read_command([*then.split(), "name=mine"], "config")).close()
        return
    with pytest.raises(UserError) as refused:
        take_folder(read_command([*then.split(), "name=mine"], "config"))
    assert says in str(refused.value)


def test_a_run_is_not_resumed_with_another_loss(tmp_path):
    take_folder(read_command(["name=mine"], "config")).close()
    ((choices, options),) = read_runs(["name=mine"])
    (tmp_path / "runs" / "mine" / "status.json").write_text("{}")
    OmegaConf.save({"choices": choices, **options}, tmp_path / "runs" / "mine" / "config.yaml")
    take_folder(read_command(["name=mine"], "config")).close()
    with pytest.raises(UserError, match="began with loss.weights=none, now balanced"):
        take_folder(read_command(["name=mine", "loss.weights=balanced"], "config"))


def test_runs_are_named_by_all_that_is_swept(tmp_path):
    command = read_command(["-m", "model=cnn,resnet18", "optim.lr=0.1,0.01", "data.split=pooled", "name=n"], "config")
    subdir = next(word for word in command.argv if word.startswith("hydra.sweep.subdir="))
    assert "optim.lr-" in subdir and "data.split" not in subdir


def test_own_yaml_in_a_config_dir(tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "_target_: cxr.models.cnn.CNN\nwidths: [4]\nhidden: 8\nown: 1\n"
    )
    words = ["--config-dir", str(tmp_path / "conf"), "model=mine", "model.own=2"]
    assert "model.own=2" in read_command(words, "config").argv
    with pytest.raises(UserError, match="choose cnn or densenet121 or efficientnet_b0 or mine or"):
        take_folder(read_command([*words[:2], "model=other"], "config"))


def test_a_class_to_screen_for_that_the_images_lack_is_said_before_anything_starts(run, drawn, tmp_path):
    code, _, err = run(main, "data=folder", f"data.root={drawn}", "screen.class=LUPUS", f"hydra.run.dir={tmp_path}/r")
    assert code == 2 and "screen.class=LUPUS: not a class of these images" in err and err.count("\n") == 1
    assert not (tmp_path / "r").exists(), "the name can be used again"
