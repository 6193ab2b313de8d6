"""Exported files predict as cxr.predict does, or they are not there."""

import copy
import csv
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

import cxr
from cxr import export, predict
from cxr.files.writing import read_json, read_table
from cxr.jobs import export_check, exporting, int8
from cxr.models import exported

CKPT = "checkpoints/best.ckpt"
ROOT = Path(cxr.__file__).parents[1]


def metadata_of(file):
    if file.suffix == ".pt2":
        extra = {"metadata.json": ""}
        torch.export.load(file, extra_files=extra)
        return json.loads(extra["metadata.json"])
    texts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    return {key: json.loads(value) if value[:1] in ("[", "{") else value for key, value in texts.items()}


@pytest.fixture
def predicted(run):
    """The probabilities of cxr.predict for a file, as numbers."""

    def call(ckpt, file):
        code, out, _ = run(predict.main, f"ckpt={ckpt}", f"source={file}", "trainer.accelerator=cpu")
        assert code == 0
        (row,) = csv.DictReader(out.splitlines())
        return [float(value) for name, value in row.items() if name.startswith("prob_")]

    return call


def test_the_script_of_the_docs_predicts_as_cxr_does(run, folder, drawn, predicted, tmp_path):
    """From a file that tells all about itself and nothing about this machine."""
    code, _, err = run(export.main, f"ckpt={folder}", f"out={tmp_path}/model.onnx")
    assert code == 0 and "in fp32 on 20 images (test images of its run): probabilities differ by at most" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    content, about = (tmp_path / "model.onnx").read_bytes(), metadata_of(tmp_path / "model.onnx")
    metrics, sha256 = read_json(folder / "metrics.json"), hashlib.sha256((folder / CKPT).read_bytes()).hexdigest()
    assert about["classes"] == metrics["classes"] and about["image_sizes"] == [32]
    assert about["checkpoints_sha256"] == [sha256] and about["cxr_version"] == cxr.__version__
    screening = metrics["screening"]
    assert about["screening"][screening["class"]]["threshold"] == screening["threshold"]
    assert "not a medical device" in about["caution"] and about["opset"] == "18"
    assert str(ROOT).encode() not in content and str(folder).encode() not in content

    (script,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "cxr/models/EXPORT.md").read_text("utf-8"), re.M | re.S)
    assert len([line for line in script.splitlines() if line]) <= 15
    image = drawn / next(row["file"] for row in read_table(folder / "predictions.csv") if "jp" in row["file"])
    words = [sys.executable, "-c", script, str(image)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert list(lines) == metrics["classes"]
    assert [float(value) for value in lines.values()] == pytest.approx(predicted(folder, image), abs=export_check.ALIKE)


@pytest.mark.long
def test_an_ensemble_of_networks_of_several_precisions_is_one_file(run, sweep, bf16_folder, drawn, predicted, tmp_path):
    ckpt, file = f"{sweep}/cnn_aug-off_seed-0,{bf16_folder / CKPT}", tmp_path / "a=b.pt2"
    code, _, err = run(export.main, f"ckpt={ckpt}", f"out={file}")
    assert code == 0, err
    assert "trained in 32-true, bf16-mixed, in which cxr.predict computes; exported in fp32" in err
    about = metadata_of(file)
    assert len(about["checkpoints_sha256"]) == 2 and about["screening"]["TUBERCULOSIS"]["threshold"] > 0
    program = torch.export.load(file).module()
    image = next((drawn / "test" / "NORMAL").iterdir())
    pixels = torch.from_numpy(np.asarray(export_check.read_grey(image, 32, export_check.READING)[0], dtype=np.float32))
    (ours, again) = program(pixels.expand(2, 1, *pixels.shape))
    assert torch.equal(ours, again) and ours.sum().item() == pytest.approx(1, abs=1e-6)
    assert ours.numpy() == pytest.approx(predicted(ckpt, image), abs=0.02), "bf16 rounds"


def test_a_checkpoint_alone_is_compared_on_drawn_images(run, folder, tmp_path):
    shutil.copy(folder / CKPT, tmp_path / "alone.ckpt")
    code, _, err = run(export.main, f"ckpt={tmp_path}/alone.ckpt", f"out={tmp_path}/model.pt2")
    assert code == 0 and f"on 20 images (drawn ones: {tmp_path}/alone.ckpt is not in its run folder" in err
    assert "without screening thresholds" in err and metadata_of(tmp_path / "model.pt2")["screening"] == {}


@pytest.mark.long
def test_8_bits_count_only_where_accuracy_holds(run, folder, tmp_path, monkeypatch):
    """As the paired comparison on the run's test images says; 32 images would not show it."""
    monkeypatch.setattr(int8, "LOSS", 1)
    file = tmp_path / "model.onnx"
    code, _, err = run(export.main, f"ckpt={folder}", f"out={file}", "int8=true")
    assert code == 0 and "int8 changes macro F1 by " in err and " on 32 test images of its run" in err
    about, kinds = metadata_of(file), [node.op_type for node in onnx.load(file).graph.node]
    assert about["precision"] == "int8" and about["int8_less_fp32"]["test_images"] == 32 and about["screening"] == {}
    first = kinds.index("QuantizeLinear")
    assert kinds[:first].count("Floor") == 2 == kinds.count("Floor"), "grey values are not rounded again"
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 50, 40)).astype(np.float32)
    run(export.main, f"ckpt={folder}", f"out={tmp_path}/fp32.onnx")
    ours, theirs = (exported.open_exported(path, ".onnx") for path in (file, tmp_path / "fp32.onnx"))
    assert ours.classes == theirs.classes
    assert ours.probabilities(images) == pytest.approx(theirs.probabilities(images), abs=0.1)

    monkeypatch.setattr(int8, "LOSS", -1)  # nothing is good enough
    code, _, err = run(export.main, f"ckpt={folder}", f"out={tmp_path}/no.onnx", "int8=true")
    assert code == 2 and "nothing is written, since it may cost more than -1" in err and err.count("\n") == 1
    shutil.copy(folder / CKPT, tmp_path / "alone.ckpt")
    code, _, err = run(export.main, f"ckpt={tmp_path}/alone.ckpt", f"out={tmp_path}/no.onnx", "int8=true")
    assert code == 2 and "int8=true: needs training and test images of the run" in err
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "fp32.onnx", "alone.ckpt"}


def permuted(graph, about):
    about["classes"] = about["classes"][::-1]
    return "the exported file has the classes "


def other_weights(graph, about):
    next(graph.nets[0].parameters()).mul_(1.1)
    return "from an image of 32x32 pixels, a probability differs by "


def crude_resizing(graph, about):
    graph.forward = lambda images: exported.Graph.forward(graph, F.interpolate(images, (32, 32), mode="nearest"))
    return "a probability differs by "


def no_number(graph, about):
    graph.temperatures = [float("nan")]
    return "a probability differs by nan"


@pytest.mark.parametrize("change", [permuted, other_weights, crude_resizing, no_number])
def test_a_wrong_export_is_caught(run, folder, tmp_path, monkeypatch, change):
    """What is written differs from the network that it is compared with."""
    says, export_graph = [], exporting.export_graph

    def wrong(graph, ending, about):
        graph = copy.deepcopy(graph)
        says.append(change(graph, about))
        return export_graph(graph, ending, about)

    monkeypatch.setattr(exporting, "export_graph", wrong)
    code, _, err = run(export.main, f"ckpt={folder}", f"out={tmp_path}/model.pt2")
    assert code == 2 and says[0] in err and "nothing is written" in err and not any(tmp_path.iterdir())


def test_a_network_that_cannot_be_exported_gets_one_line(run, folder, tmp_path, monkeypatch):
    def depends_on_values(self, images):
        return images if images.sum() > 0 else -images

    monkeypatch.setattr(exported.Graph, "forward", depends_on_values)
    code, _, err = run(export.main, f"ckpt={folder}", f"out={tmp_path}/model.pt2")
    assert code == 2 and "this network cannot be exported to .pt2 (" in err and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ckpt={folder}"], "out is missing"),
        (
            ["ckpt={folder}", "out={folder}/metrics.json"],
            "metrics.json: it exists already; must be a",
        ),
        (
            ["ckpt={folder}", "out=/no/model.onnx"],
            "out=/no/model.onnx: its folder does not exist; must be a",
        ),
        (["ckpt={folder}", "out={tmp}/model.txt"], "model.txt: must end with .onnx or .pt2"),
        (["ckpt={folder}", "out={tmp}/model.pt2", "int8=true"], "only files that end with .onnx compute in 8 bits"),
        (["ckpt={folder}", "out={tmp}/model.onnx"], "model.onnx: this needs onnxruntime: pip install 'cxr[onnx]'"),
        (["ckpt={folder}/metrics.json", "out={tmp}/model.pt2"], "not a checkpoint that cxr wrote"),
    ],
)
def test_wrong_options_get_one_line(run, folder, tmp_path, monkeypatch, words, says):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda *words: None if "onnxruntime" in words else find_spec(*words)
    )
    code, out, err = run(export.main, *(word.format(folder=folder, tmp=tmp_path) for word in words))
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err and not any(tmp_path.iterdir())
