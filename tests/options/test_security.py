"""Options are data: on the command line and in files, they name no code and no place outside."""

import sys

import pytest

from cxr import train
from cxr.errors import UserError
from cxr.models.classifier import build
from cxr.options.command_line import read_command


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of choices whose model=mine names a class of the package mynets, which can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mynets.py").write_text(
        "import os\nfrom torch import nn\n\nclass Net(nn.Linear):\n"
        "    def __init__(self, n_classes, image_size):\n        super().__init__(image_size, n_classes)\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: mynets.Net\n")
    yield ["--config-dir", str(tmp_path / "conf"), "model=mine"]
    sys.modules.pop("mynets", None)


def test_own_networks_need_a_word_that_no_file_can_say(own, monkeypatch):
    with pytest.raises(UserError, match=r"model._target_=mynets.Net: .*CXR_TRUST=PACKAGE"):
        read_command(own, "config")
    with pytest.raises(UserError, match="CXR_TRUST"):
        build("model", {"_target_": "mynets.Net"}, n_classes=2, image_size=16)
    assert "mynets" not in sys.modules, "what is refused is not imported"
    monkeypatch.setenv("CXR_TRUST", "other, mynets")
    assert read_command(own, "config").argv
    assert build("model", {"_target_": "mynets.Net"}, n_classes=2, image_size=16).out_features == 2
    for name in ("mynets.os.system", "mynetsx.Net"):  # a package that is trusted vouches for itself alone
        with pytest.raises(UserError, match="_target_"):
            build("model", {"_target_": name})


OWN = "of Hydra's own options, only hydra.run.dir"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("model._target_=os.system", "model._target_=os.system: options may name parts of cxr.models"),
        ("-m model._target_=cxr.models.cnn.CNN,os.system", "model._target_=os.system"),
        ("+model.deep=[{_target_:os.system}]", "model.deep.0._target_=os.system"),
        ("+trainer.profiler={_target_:os.system}", "trainer.profiler._target_"),
        ("optim._target_=torch.hub.load", "optim._target_=torch.hub.load"),
        ("hydra.launcher._target_=os.system", OWN),
        ("+hydra.launcher.deep={_target_:os.system}", OWN),
        ("+hydra.launcher.deep=${model}", OWN),
        ("+model@hydra.job=cnn", OWN),
        ("hydra/launcher=joblib", OWN),
        ("+hydra.callbacks.mine._target_=os.system", OWN),
        ("+hydra.callbacks.mine._target_=cxr.jobs.task.os.system", OWN),
        ("+hydra.callbacks.mine._target_=cxr.jobs.task.Task", OWN),
        ("hydra.searchpath=[file:///x]", OWN),
        ("hydra.job_logging.handlers.file.class=subprocess.Popen", OWN),
        ("hydra.job_logging.handlers.file.filename=../x", OWN),
        ("hydra.job_logging.handlers.console.stream=ext://os.environ", OWN),
        ("hydra.job.name=../x", OWN),
        ("hydra.output_subdir=../x", OWN),
        ("-m aug=on,off hydra.sweep.subdir=../${seed}", "hydra.sweep.subdir=../0: must be the name of a folder"),
        ("-m aug=on,off hydra.sweep.subdir=/x", "hydra.sweep.subdir=/x: must be the name of a folder"),
        ("model=sub/mine", "model=sub/mine: unknown"),
        ("+hydra.job.env_set.CXR_TRUST=os", OWN),
        ("hydra.searchpath=[pkg://os]", OWN),
        ("--config-path /x", "write --config-dir DIR"),
        ("--experimental-rerun x.pickle", "cxr reads no pickle"),
        ("--help --config-dir /x", "--help: leave out --config-dir"),
    ],
)
def test_options_of_the_command_line_name_no_code_and_no_place_outside(said, tmp_path, words, says):
    code, line = said(train.main, *words.split())
    assert code == 2 and says in line
    assert not list(tmp_path.iterdir()), "nothing has started"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hydra:\n  job_logging:\n    filters:\n      mine: {'()': os.system}\n", OWN),
        ("hydra:\n  hydra_logging: ${model.log}\nmodel:\n  log: {version: 1, f: {'()': os.system}}\n", OWN),
        ("hydra:\n  callbacks: \"${oc.create:'{mine: {_target_: os.system}}'}\"\n", OWN),
        ("hydra:\n  sweeper:\n    params: {hydra.job.name: ../x}\n", OWN),
        ("hydra:\n  sweep:\n    subdir: ../x\n  job:\n    env_set: {CXR_TRUST: os}\n", OWN),
        ('"hy\\x64ra": {job: {env_set: {CXR_TRUST: os}}}\n', OWN),
        ("defaults:\n  - override /hydra/launcher: submitit_local\n", OWN),
        ("defaults:\n  - part@hydra.job.env_set: x\n", OWN),
        ("defaults:\n  - /${aug}/launcher: x\n", OWN),
        ("#@package: hydra.job\nenv_set: {CXR_TRUST: os}\n", OWN),
        ("a: b: c\n", "mapping values are not allowed"),
        ('slurm: {partition: "x\\ntouch canary"}\n', "slurm.partition="),
        ('name: "x\\ntouch canary"\n', "name=x"),
    ],
)
def test_files_of_choices_are_data(said, tmp_path, monkeypatch, text, says):
    monkeypatch.setattr("cxr.options.composing.check_plugin", lambda *_: None)  # launcher=slurm needs no Slurm here
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "theirs.yaml").write_text(f"# @package _global_\n{text}")
    words = ["-m", "--config-dir", tmp_path / "conf", "aug=on,off", "experiment=theirs", "seed=1"]
    code, line = said(train.main, *words, *(["launcher=slurm"] if text.startswith("slurm") else []))
    assert code == 2 and says in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_choices_reaches_hydra_by_no_link(said, tmp_path):
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "theirs.yaml").write_text("# @package hydra.job\nenv_set: {CXR_TRUST: os}\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "experiment").symlink_to(evil)
    (evil / "round").symlink_to(tmp_path / "conf")
    code, line = said(train.main, "--config-dir", tmp_path / "conf", "experiment=theirs")
    assert code == 2 and OWN in line


def test_swept_values_stay_in_the_folder_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: cxr.models.cnn.CNN\nwidths: [4]\nhidden: x\n")
    words = ["-m", "--config-dir", "mine", "model=own", "model.hidden=3,4", "+model.a='../../x','/y'", "name=n"]
    assert any("folder_text" in word for word in read_command(words, "config").argv)


def test_all_that_conf_offers_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, choice in enumerate(("experiment=capstone2022,quick", "optim=sgd")):
        read_command(["-m", choice, f"name={number}"], "config")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    read_command(["-m", "launcher=parallel", "aug=on,off", "name=b"], "config")
