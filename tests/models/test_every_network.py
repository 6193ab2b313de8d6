"""Every network that conf lists trains an epoch, and its checkpoint says what it says."""

import importlib.util

import pytest
import torch

from cxr.files.run_folder import CHECKPOINTS
from cxr.models.classifier import load_classifier
from cxr.options.command_line import read_runs
from cxr.options.composing import CONF
from cxr.training.build import build_data, build_model, build_run
from cxr.training.checkpoints import BEST

NETWORKS = {file.stem: [f"model={file.stem}"] for file in (CONF / "model").glob("*.yaml")} | {
    "timm": ["model=timm", "model.name=test_vit2"]  # timm's own for tests, of a fixed size
}


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_a_network_trains_and_reads_back(network, drawn, cache, tmp_path):
    if network == "timm" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed (pip install timm)")
    images = ["data=folder", f"data.root={drawn}", f"cache_dir={cache}", "data.image_size=64", "data.test_fraction=0.9"]
    training = ["trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=1", "data.val_fraction=0.5"]
    ((_, config),) = read_runs([*NETWORKS[network], *images, *training, "data.batch_size=4", "optim=sgd"])
    data = build_data(config)
    built = build_run(config, tmp_path, data, build_model(config, data))
    before = [p.clone() for p in built.model.parameters()]
    built.trainer.fit(built.model, built.data)
    assert built.trainer.global_step == -(-int((data.split == "train").sum()) // 4)
    moved = [not torch.equal(a, b) for a, b in zip(before, built.model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved), "every layer learns"
    image = torch.rand(3, 1, 64, 64)
    again = load_classifier(tmp_path / CHECKPOINTS / BEST)
    with torch.no_grad():
        assert torch.equal(again.probabilities(image), built.model.eval().probabilities(image))
