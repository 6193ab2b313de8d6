"""Options that are allowed one by one but not together. No torch here."""

from collections.abc import Mapping
from typing import Any

from cxr.errors import UserError
from cxr.options.ranks import ranks


def check_together(options: Mapping[str, Any]) -> None:
    """Raise UserError for options that are allowed one by one but not together."""
    if "devices" in options.get("trainer", {}):
        check_devices(options["trainer"], options["data"]["batch_size"], training="aug" in options)
    slurm = options.get("slurm", {})
    if slurm and slurm["warning"] >= 60 * slurm["time"]:
        raise UserError(
            f"slurm.warning={slurm['warning']} (seconds): must be shorter than slurm.time={slurm['time']} (minutes): "
            "jobs would save and requeue as soon as they start"
        )
    data = options.get("data", {})
    check_fold(data)
    check_hospitals(data)
    if options.get("loss", {}).get("weights") == data.get("sampler") == "balanced":
        raise UserError(
            "loss.weights=balanced data.sampler=balanced: each alone makes all classes count the same; both together "
            "would make rare classes count more; choose one"
        )


def check_fold(data: Mapping[str, Any]) -> None:
    """Raise UserError for a fold that does not exist."""
    if data.get("fold", 0) and data["split"] != "folds":
        raise UserError(f"data.fold={data['fold']}: only with data.split=folds")
    if data.get("fold", 0) >= data.get("folds", 2):
        raise UserError(f"data.fold={data['fold']}: data.folds={data['folds']} folds are numbered from 0")


def check_hospitals(data: Mapping[str, Any]) -> None:
    """Raise UserError where options about hospitals need others."""
    name = data.get("hold_out")
    if name is None and data.get("split") == "hospital":
        raise UserError("data.split=hospital: name the one that tests with data.hold_out=NAME, or -m data.hold_out=all")
    if name is not None and data["split"] != "hospital":
        raise UserError(f"data.hold_out={name}: only with data.split=hospital")


def check_devices(trainer: Mapping[str, Any], batch_size: int, training: bool) -> None:
    """Raise UserError where several devices cannot share a batch, or the command uses one device only."""
    number = ranks(trainer)
    if number == 1:
        return
    if not training:
        raise UserError("trainer.devices: this command uses one device; write 1, or [N] for GPU number N")
    if trainer.get("strategy") != "ddp":
        raise UserError(f"trainer.devices={trainer['devices']}: several devices for one run need trainer=ddp")
    if batch_size % number or batch_size < 4 * number:
        raise UserError(
            f"data.batch_size={batch_size}: counts the images of all {number} devices together (trainer.devices × "
            f"num_nodes); use a multiple of {number}, at least {4 * number}"
        )
