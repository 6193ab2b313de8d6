"""Two runs that have to be the same to the last bit, whatever happened to one of them on the way."""

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights, optimizer, predictions, metrics and TensorBoard's scalars; only times may differ."""
    for path in (theirs / "checkpoints").glob("*.ckpt"):
        assert_same(checkpoint(ours / "checkpoints" / path.name), checkpoint(path), path.name)
    both = ({path.name for path in (run / "checkpoints").iterdir()} for run in (ours, theirs))
    assert len({frozenset(names) for names in both}) == 1, "checkpoints"
    tables = {"predictions.csv", "split.csv", "rejected.csv", "audit.json"}
    for name in tables | {path.name for run in (ours, theirs) for path in run.glob("val_predictions.csv")}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert_same(metrics(ours), metrics(theirs), "metrics.json")
    assert_same(scalars(ours), scalars(theirs), "TensorBoard")


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}: {key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}: {number}")
    else:
        assert ours == theirs, where


def checkpoint(path: Path) -> dict[str, Any]:
    kept = torch.load(path, weights_only=True)
    if "callbacks" in kept:
        timer = kept["callbacks"]["EpochTimer"]
        kept["callbacks"]["EpochTimer"] = len(timer["epochs"])
        best = next((key for key in kept["callbacks"] if key.startswith("BestCheckpoint")), None)
        if best:  # it holds paths
            kept["callbacks"][best] = kept["callbacks"][best]["best_model_score"]
    return kept


def metrics(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text())
    for key in ("images_per_s", "seconds", "seconds_in"):
        del found["train"][key]
    del found["heatmaps"]  # which runs that tests start do not have, see conftest.py
    return found


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
