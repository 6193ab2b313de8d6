"""The graph of an exported file: its resizing is Pillow's, and every network of conf fits into it."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.data import decode
from cxr.models.classifier import Classifier
from cxr.models.ensemble import Ensemble
from cxr.models.exported import Graph, export_graph, open_exported, to_square
from cxr.options.command_line import read_runs
from cxr.options.composing import CONF

NETWORKS = {file.stem: [f"model={file.stem}"] for file in (CONF / "model").glob("*.yaml")} | {
    "timm": ["model=timm", "model.name=test_vit2"]
}


@pytest.mark.parametrize("shape", [(30, 40), (201, 300), (257, 301), (777, 1000), (500, 64), (64, 64)])
def test_the_graph_resizes_as_pillow_does(shape):
    """To the bit, except where a value lies in the middle of two."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    theirs = decode.to_square(Image.fromarray(pixels), 64).astype(int)
    ours = to_square(torch.from_numpy(pixels)[None, None].float(), 64)[0, 0].numpy()
    assert abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.01
    assert shape != (64, 64) or (ours == pixels).all()


@pytest.mark.long
@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_exports(network, ending, tmp_path):
    if network == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (pip install timm)")
    ((_, config),) = read_runs([*NETWORKS[network], "data.image_size=64"])
    torch.manual_seed(0)
    model = Classifier(config["model"], config["optim"], ["NORMAL", "PNEUMONIA", "COVID19"], 64)
    with torch.no_grad():
        for _ in range(30):  # statistics of batch normalisation, or some networks would answer the same to all images
            model(torch.rand(8, 1, 64, 64))
    ensemble = Ensemble([model.eval()])
    (tmp_path / "file").write_bytes(export_graph(Graph(ensemble), ending, {"classes": model.classes}))
    file = open_exported(tmp_path / "file", ending)
    for shape in [(5, 1, 64, 64), (1, 1, 150, 99)]:
        images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).float()
        ours = ensemble.probabilities({64: to_square(images, 64) / 255})
        assert file.classes == model.classes and np.ptp(ours) > 0.01
        assert file.probabilities(images.numpy()) == pytest.approx(ours, abs=1e-4)
