"""Which precision is the best one, and which one networks compute in."""

import logging

import pytest
import torch

from cxr.models import precision
from cxr.models.precision import best_precision, bf16_gain, computing_in, possible


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def only_fp32(monkeypatch):
    """A device that can compute in nothing else."""
    monkeypatch.setattr(precision, "can_compute", lambda dtype, device: False)
    possible.cache_clear()
    yield
    possible.cache_clear()


@pytest.mark.usefixtures("no_gpu")
def test_precision_is_bf16_only_where_it_is_clearly_faster(monkeypatch):
    assert 0 < bf16_gain() == bf16_gain(), "measured once in a process"
    for gain, best in ((2.2, "bf16-mixed"), (1.1, "32-true"), (0.5, "32-true")):
        monkeypatch.setattr(precision, "bf16_gain", lambda gain=gain: gain)
        assert best_precision("auto") == best_precision("cpu") == best
    monkeypatch.setattr(precision, "bf16_gain", lambda: 2.2)
    assert best_precision("gpu") == "32-true", "there is none; the Trainer says so"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert best_precision("auto") == "32-true"


def test_networks_compute_in_the_precision():
    layer, image = torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 4, 4)
    for name, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)):
        assert possible(name, "cpu") == name
        with computing_in(name, "cpu"):
            assert layer(image).dtype == dtype


@pytest.mark.usefixtures("only_fp32")
def test_a_device_that_cannot_computes_in_fp32_with_one_warning(caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        with computing_in("bf16-mixed", "cpu"):
            assert torch.nn.Linear(1, 1)(torch.ones(1)).dtype == torch.float32
    assert possible("32-true", "cpu") == "32-true"
    (line,) = caplog.messages
    assert line == "this device (cpu) cannot compute in bf16-mixed: it uses fp32, and figures differ slightly"


def test_a_device_that_is_missing_can_compute_nothing():
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    assert not precision.can_compute(torch.bfloat16, missing)
