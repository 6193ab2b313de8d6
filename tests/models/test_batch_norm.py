"""Running statistics of batch normalisation: how long they average, and for which networks."""

import pytest
import torch
from torch import nn

from cxr.models.batch_norm import average_longer
from cxr.models.classifier import Classifier


@pytest.mark.parametrize(("steps", "momentum"), [(5, 0.1), (80, 0.1), (160, 0.05), (330, 0.03), (10_000, 0.03)])
def test_a_short_training_still_forgets_the_first_statistics(steps, momentum):
    net = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1, momentum=0.01), nn.BatchNorm1d(1))
    average_longer(net, steps)
    assert net[0].momentum == net[2].momentum == pytest.approx(momentum) and net[1].momentum == 0.01
    if steps < 80:
        return
    for _ in range(steps):
        net[0](torch.randn(8, 1, 2, 2) + 100)
    assert abs(net[0].running_mean.item() - 100) < 0.5


@pytest.mark.parametrize(("schedule", "momentum"), [("onecycle", 0.03), ("constant", 0.1)])
def test_it_goes_with_one_cycle(schedule, momentum):
    """At a constant learning rate, as in experiment=capstone2022, weights never come to rest."""
    network = {"_target_": "cxr.models.resnet.resnet18", "weights": None}
    optim = {"_target_": "torch.optim.Adam", "lr": 0.001, "schedule": schedule}
    model = Classifier(network, optim, ("A", "B"), image_size=32)
    model._trainer = type("Trainer", (), {"estimated_stepping_batches": 1000, "logger": None})()
    model.configure_optimizers()
    assert model.net.bn1.momentum == momentum
