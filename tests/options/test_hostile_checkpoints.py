"""Checkpoints and archives are data: none of them runs code, or reads or writes where it should not."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from cxr import evaluate, predict, train
from cxr.errors import UserError
from cxr.models import resnet, weights
from cxr.models.classifier import build, load_classifier
from cxr.options.allowed_code import check_objects


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
