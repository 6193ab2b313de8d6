import pickle

import pytest
import torch

from cxr.errors import UserError
from cxr.models.classifier import Classifier, load_classifier

MODEL = {"_target_": "cxr.models.cnn.CNN", "widths": [4, 8, 8], "hidden": 16}
OPTIM = {"_target_": "torch.optim.Adam", "lr": 0.001, "schedule": "constant"}


def classifier(**optim):
    return Classifier(MODEL, OPTIM | optim, ("A", "B", "C"), image_size=16, note="drawn")


def test_optimizer_has_the_options_and_all_parameters():
    model = classifier(_target_="torch.optim.SGD", lr=0.3, momentum=0.5)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.3, 0.5)
    assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def test_one_cycle_rises_to_lr_and_falls_to_nothing():
    model = classifier(schedule="onecycle", lr=0.1)
    model._trainer = type("Trainer", (), {"estimated_stepping_batches": 100, "logger": None})()
    made = model.configure_optimizers()
    rates = []
    for _ in range(100):
        rates.append(made["lr_scheduler"]["scheduler"].get_last_lr()[0])
        made["optimizer"].step()
        if len(rates) < 100:
            made["lr_scheduler"]["scheduler"].step()
    assert max(rates) == pytest.approx(0.1)
    assert 25 <= rates.index(max(rates)) <= 35
    assert rates[-1] < 1e-4 and made["lr_scheduler"]["interval"] == "step"


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(tmp_path):
    canary = tmp_path / "canary"

    class Malicious:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    with (tmp_path / "evil.ckpt").open("wb") as file:
        pickle.dump({"state_dict": Malicious()}, file)
    torch.save({"state_dict": Malicious()}, tmp_path / "evil2.ckpt")
    (tmp_path / "text.ckpt").write_text("nothing")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name in ("evil.ckpt", "evil2.ckpt", "text.ckpt", "other.ckpt"):
        with pytest.raises(UserError, match="not a checkpoint that cxr wrote"):
            load_classifier(tmp_path / name)
    assert not canary.exists()


@pytest.mark.parametrize("precision", ["64-true", ["bf16-mixed"], 3])
def test_a_checkpoint_of_another_precision_is_refused(folder, tmp_path, precision):
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["precision"] == "32-true"
    torch.save(kept | {"precision": precision}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint that cxr wrote"):
        load_classifier(tmp_path / "other.ckpt")
