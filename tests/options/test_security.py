"""Checkpoints, options and archives are data: none of them runs code, or writes where it should not."""

import json
import pickle
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cxr import evaluate, predict, train
from cxr.data.decode import BadImage, decode
from cxr.errors import UserError
from cxr.files.writing import read_table, write_table
from cxr.models import resnet, weights
from cxr.models.classifier import build, load_classifier
from cxr.options.allowed_code import check_objects
from cxr.options.command_line import read_command
from cxr.reporting.leaderboard import write_leaderboard
from cxr.reporting.model_card import write_model_card
from cxr.reporting.report import write_report


class Canary:
    """Whoever unpickles this makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def raw_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def archive_of_objects(content, path):
    with path.open("wb") as file:
        np.savez(file, files=np.array([content], dtype=object))


@pytest.fixture
def said(run, tmp_path, monkeypatch):
    """Run a command that has to end with one line; returns its exit code and the line."""
    monkeypatch.chdir(tmp_path)

    def call(main, *words):
        code, _, err = run(main, *words)
        (line,) = (line for line in err.splitlines() if line.startswith("cxr: "))
        assert "Traceback" not in err
        return code, line

    return call


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [raw_pickle, torch.save, legacy])
def test_no_entry_point_runs_the_code_in_a_checkpoint(said, tmp_path, small, drawn, cache, save):
    canary, evil = tmp_path / "canary", tmp_path / "evil.ckpt"
    save({"state_dict": Canary(canary), "hyper_parameters": Canary(canary)}, evil)
    code, line = said(predict.main, f"ckpt={evil}", f"source={drawn}")
    assert code == 2 and "not a checkpoint that cxr wrote" in line
    code, line = said(evaluate.main, f"ckpt={evil}", "data=folder", f"data.root={drawn}", f"cache_dir={cache}")
    assert code == 2 and "not a checkpoint that cxr wrote" in line
    images = [word for word in small if not word.startswith(("model.", "aug"))]
    code, line = said(train.main, *images, "model=resnet18", f"model.weights={evil}", "name=r")
    assert code == 1 and "not a file of weights that torch can read safely" in line
    assert not canary.exists()


@pytest.mark.parametrize("save", [archive_of_objects, raw_pickle, lambda _, path: np.savez(path, files=np.zeros(3))])
def test_the_images_beside_a_checkpoint_are_data_too(said, tmp_path, folder, drawn, cache, save):
    canary, run = tmp_path / "canary", shutil.copytree(folder, tmp_path / "run")
    save(Canary(canary), run / "checkpoints" / "images.npz")
    ckpt = run / "checkpoints" / "best.ckpt"
    code, line = said(evaluate.main, f"ckpt={ckpt}", "data=folder", f"data.root={drawn}", f"cache_dir={cache}")
    assert code == 2 and "images.npz: damaged, or not what cxr wrote" in line
    assert not canary.exists()


CNN = {"_target_": "cxr.models.cnn.CNN", "widths": [4], "hidden": 8}
SYSTEM = {"_target_": "os.system", "_args_": ["touch canary"]}
HOSTILE = [
    SYSTEM,
    SYSTEM | {"_partial_": True},
    SYSTEM | {"_target_": "cxr.jobs.run.os.system"},
    SYSTEM | {"_target_": "cxr.models.resnet.torch.os.system"},
    SYSTEM | {"_target_": "torch.nn.modules.module.torch.os.system"},
    SYSTEM | {"_target_": "${_args_.0}"},
    SYSTEM | {"_target_": ["os.system"]},
    CNN | {"hidden": SYSTEM},
    CNN | {"widths": [4, {"deep": [SYSTEM]}]},
    CNN | {"hidden": "${oc.create:'{_target_: os.system, _args_: [touch canary]}'}"},
    {"_target_": "torch.nn.Sequential", "_args_": [SYSTEM]},
    {"_target_": "builtins.exec", "_args_": ["open('canary', 'w')"]},
    {"_target_": "functools.partial", "_args_": [{"_target_": "hydra.utils.get_method", "path": "os.system"}]},
    {"_target_": "torch.hub.load", "repo_or_dir": ".", "source": "local", "model": "x"},
    {"_target_": "cxr.models.resnet.torch.load", "f": "x", "weights_only": False},
    {"_target_": "torch.nn.modules.module.register_module_forward_hook", "hook": "x"},
    {"_target_": "cxr.models.cnn.CNN.load_state_dict"},
    {"_target_": "torch.nn.Module.__init__.__globals__"},
    {"_target_": "cxr.train.main"},
    {"_target_": 3},
    {},
    "os.system",
]


@pytest.mark.parametrize("options", HOSTILE)
def test_options_build_networks_and_nothing_else(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"_target_|\$\{") as refused:
        build("model", options, n_classes=2, image_size=16)
    assert "\n" not in str(refused.value) and not (tmp_path / "canary").exists()


def test_what_torch_and_torchvision_offer_can_be_named():
    for name in ("torch.nn.Linear", "torch.optim.RMSprop", "torchvision.models.vit_b_16", "torchvision.ops.MLP"):
        check_objects({"_target_": name}, "model")
    norm = {"_target_": "torch.nn.BatchNorm2d", "_partial_": True}
    net = build("model", {"_target_": "torchvision.models.resnet18", "num_classes": 2, "norm_layer": norm})
    assert net.fc.out_features == 2


@pytest.fixture
def altered(folder, tmp_path):
    """A good checkpoint with other options of its network."""
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)

    def save(**more):
        kept["hyper_parameters"] |= more
        torch.save(kept, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return save


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": SYSTEM}, "model._target_=os.system: options may name"),
        ({"model": CNN | {"hidden": SYSTEM}}, "model.hidden._target_=os.system"),
        ({"_instantiator": "os.system"}, "not a checkpoint that cxr wrote"),
        ({"_instantiator": "pytorch_lightning.cli.instantiate_module"}, "not a checkpoint that cxr wrote"),
        ({"image_size": "64"}, "not a checkpoint that cxr wrote"),
        ({"classes": [1, 2, 3, 4]}, "not a checkpoint that cxr wrote"),
        ({"model": 3}, "not a checkpoint that cxr wrote"),
    ],
)
def test_a_checkpoint_cannot_name_code(said, tmp_path, altered, drawn, cache, more, says):
    ckpt = altered(**more)
    code, line = said(predict.main, f"ckpt={ckpt}", f"source={drawn}")
    assert code == 2 and line.startswith(f"cxr: ckpt={ckpt}: ") and says in line
    if "_target_" in says:  # both commands read it by the same function: the others need no second look
        code, line = said(evaluate.main, f"ckpt={ckpt}", "data=folder", f"data.root={drawn}", f"cache_dir={cache}")
        assert code == 2 and says in line
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "state",
    [
        {"state_dict": 3},
        {"state_dict": {1: torch.zeros(1)}},
        {1: torch.zeros(1)},
        {"fc.weight": torch.zeros(1)},
        {"conv1.weight": torch.zeros(1, 3)},
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        [torch.zeros(1)],
    ],
)
def test_weights_of_any_shape_are_one_line(tmp_path, state):
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match="model.weights="):
        resnet.resnet18(4, 16, str(tmp_path / "w.pt"))


def test_a_checkpoint_reads_no_other_file(altered, monkeypatch, tmp_path):
    """Those weights that its training began with are another file, or a download; its own are in it."""
    net = resnet.resnet18(4, 16, None)
    path = altered(model={"_target_": "cxr.models.resnet.resnet18", "weights": "imagenet"})
    kept = torch.load(path, weights_only=True)
    kept["state_dict"] = {k: v for k, v in kept["state_dict"].items() if not k.startswith("net.")}
    kept["state_dict"] |= {f"net.{k}": v for k, v in net.state_dict().items()}
    torch.save(kept, path)
    monkeypatch.setattr(weights, "download", None)
    assert torch.equal(load_classifier(path).net.conv1.weight, net.conv1.weight)


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


# As a name of a class, an image, a source, an option and an error.
NAME = """<script>alert(1)</script>' " onerror="alert(1)'> [x](javascript:alert(1)) a|b {{ 7 * 7 }}<img src=x>"""


class Page(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def renamed(value):
    """A JSON file with that name in the place of every other: of classes, files, options, errors, notes."""
    if isinstance(value, dict):
        return {NAME if key == "NORMAL" else key: renamed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner) for inner in value]
    if not isinstance(value, str) or value in ("done", "off", "on") or re.fullmatch(r"[a-z_]+", value):
        return value
    return NAME if value == "NORMAL" else f"{value}{NAME}"


def test_no_name_becomes_a_part_of_a_page_or_a_table(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("checkpoints"))
    for path in [*copy.glob("*/*.json"), copy / "comparisons.json"]:
        told = renamed(json.loads(path.read_text()))
        if path.name == "status.json":
            told |= {"choices": told["choices"] | {"cache_dir": NAME}, "error": NAME}
        path.write_text(json.dumps(told))
    for path in copy.glob("*/split.csv"):
        rows = [{**row, "label": row["label"].replace("NORMAL", NAME)} for row in read_table(path)]
        write_table(path, list(rows[0]), [list(row.values()) for row in rows])
    write_leaderboard(copy)
    page = Page(write_report(copy, "en").read_text())
    assert NAME in page.text
    tags = (
        "html head meta title style body nav a ol h1 h2 h3 h4 p section div table thead tbody tr th td ul li img pre br"
    )
    assert {tag for tag, _ in page.tags} <= {*tags.split(), "code", "b"}
    for tag, attributes in page.tags:
        assert attributes.keys() <= {
            "lang",
            "charset",
            "name",
            "content",
            "class",
            "alt",
            "src",
            "id",
            "href",
            "aria-label",
        }, tag
        assert attributes.get("src", "data:image/png;base64,").startswith(
            ("data:image/png;base64,", "data:image/jpeg;base64,")
        )
    run = next(copy.glob("*/metrics.json")).parent
    metrics, audit = (json.loads((run / name).read_text()) for name in ("metrics.json", "audit.json"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    write_model_card(run, metrics | {"note": NAME}, config, audit)
    for path in (copy / "leaderboard.md", run / "MODEL_CARD.md"):
        text = path.read_text()
        assert "<" not in text and "](" not in text, path
        tables = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
        assert len(tables) > 4 and len(set(tables)) <= 4, "columns stay columns"


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")  # as cxr.jobs.external_evaluation has it
def test_nor_a_part_of_what_is_said_of_images_from_elsewhere(run, folder, drawn, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, manifest = NAME.replace("/", ""), ["file,patient,source"]
    for number, image in enumerate(sorted((drawn / "test" / "NORMAL").iterdir())[:6]):
        place = tmp_path / "images" / ("NORMAL" if number < 4 else name) / f"{number}{name}{image.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
        quoted = str(place.relative_to(tmp_path / "images")).replace('"', '""')
        manifest.append(f'"{quoted}",p{number},"{name.replace(chr(34), "") * (number > 0)}"')
    (tmp_path / "images" / "manifest.csv").write_text("\n".join(manifest))
    words = [f"ckpt={folder / 'checkpoints' / 'best.ckpt'}", "data=folder", f"data.root={tmp_path / 'images'}"]
    code, _, err = run(evaluate.main, *words, "data.on_leak=keep", f"cache_dir={cache}", "name=e")
    assert code == 0, err
    text = (tmp_path / "runs" / "e" / "evaluation.md").read_text()
    assert "&lt;SCRIPT>" in text and "&lt;script>" in text and "<" not in text and "](" not in text


def test_tensorboard_is_started_for_this_machine_alone():
    root = Path(__file__).parents[2]
    for name in ("Makefile", "README.md"):
        text = (root / name).read_text(encoding="utf-8")
        started = [line for line in text.splitlines() if re.search(r"tensorboard(\.main)? .*--logdir", line)]
        assert all("--host 127.0.0.1" in line for line in started) and "bind_all" not in text
        assert started or name == "README.md"


def test_decoders_of_other_kinds_of_image_are_not_reached(tmp_path):
    for kind in ("gif", "bmp", "tiff", "webp", "ppm"):
        Image.new("L", (40, 40)).save(tmp_path / f"a.{kind}")
        (tmp_path / f"a.{kind}").rename(tmp_path / f"{kind}.png")
        with pytest.raises(BadImage, match="not a JPEG, PNG or DICOM|image: convert it to PNG"):
            decode(tmp_path / f"{kind}.png", 16)
