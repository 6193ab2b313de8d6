"""The runs of a sweep as rows, read from their folders alone, so that any process can do it at any time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxr.files.run_folder import HEADLINES, METRICS, SEARCH, STATUS
from cxr.files.status import read_status
from cxr.files.writing import read_json

COLUMNS = ("status", "error", *HEADLINES, "epochs", "seconds", "images_per_s", "run")
# Behind the columns that others read by position: the ends of macro F1's 95 % interval; late_spread(); ImageTable.note;
# macro F1 on validation images; the cost of the network: parameters, FLOPs per image; and what its results depend on
# beside the options: the precision, the device and the version of torch.
COST = ("parameters", "flops")
BESIDE = ("precision", "device", "torch")
# Of runs with a hospital held out: macro F1 inside, and how much less it is outside, with its interval.
TRANSFER = ("inside_f1_macro", "transfer_gap", "transfer_gap_low", "transfer_gap_high")
MORE = ("f1_macro_low", "f1_macro_high", "val_f1_spread", "note", "val_f1_macro", *COST, *BESIDE, *TRANSFER)

REPEATED = ("seed", "data.fold")  # choices that do not make another recipe

Row = dict[str, Any]


class Run(NamedTuple):
    """A finished run: its row of the leaderboard, its folder, and its metrics.json."""

    row: Row
    folder: Path
    metrics: Mapping[str, Any]


def validation_score(row: Row) -> float:
    """Macro F1 on validation images, 0 without any. What to show of a sweep is chosen by it: chosen by test images, it
    would look better than it is."""
    return row["val_f1_macro"] or 0.0


def collect(sweep: Path) -> list[Row]:
    """One row for each run folder directly below `sweep`, in the order in which they began.

    A row holds the run's choices (model, aug, seed, every other swept option), its status and error, figures on the
    test images, and its folder; "" stands for what is not known.
    """
    folders = [path.parent for path in sweep.glob(f"*/{STATUS}")]
    began = {folder: read_json(folder / STATUS).get("started", 0) for folder in folders}
    return [row_of(folder) for folder in sorted(folders, key=lambda folder: (began[folder], folder))]


def row_of(folder: Path) -> Row:
    """The row of one run folder; see collect()."""
    status, metrics = read_status(folder), read_json(folder / METRICS)
    train, test = metrics.get("train", {}), metrics.get("test", {})
    low, high = test.get("ci95", {}).get("f1_macro", ("", ""))
    # Diverged: the worst score, not none, or a mean over seeds and a search would take the recipe for a good one.
    unknown = 0.0 if status.get("diverged") else ""
    return {
        **status.get("choices", {}),
        "status": status.get("status", ""),
        "error": status.get("error", ""),
        **{key: test.get(key, unknown) for key in HEADLINES},
        "epochs": train.get("epochs", ""),
        "seconds": status.get("seconds", ""),
        "images_per_s": train.get("images_per_s", ""),
        "run": folder.name,
        "f1_macro_low": low,
        "f1_macro_high": high,
        "val_f1_spread": late_spread(train.get("history", {}).get("val_f1_macro", [])),
        "note": metrics.get("note", ""),
        **{key: metrics.get("network", {}).get(key, "") for key in COST},
        "val_f1_macro": (metrics.get("val") or {}).get("f1_macro", unknown),
        **{key: train.get(key, "") for key in ("precision", "device")},
        "torch": metrics.get("versions", {}).get("torch", ""),
        **transfer_of(metrics),
    }


def transfer_of(metrics: Mapping[str, Any]) -> dict[str, float | str]:
    """The columns TRANSFER of a run, from its metrics.json."""
    transfer = metrics.get("transfer")
    if not transfer:
        return dict.fromkeys(TRANSFER, "")
    gap = transfer["difference"]["f1_macro"]
    return dict(zip(TRANSFER, (transfer["inside"]["test"]["f1_macro"], gap["difference"], *gap["ci95"]), strict=True))


def late_spread(figures: Sequence[float]) -> float | str:
    """How far a figure wandered over the last third of the epochs: its highest less its lowest value; "" of too few."""
    last = figures[-max(len(figures) // 3, 2) :]
    return max(last) - min(last) if len(figures) > 2 else ""


def choices(rows: Sequence[Row]) -> list[str]:
    """The options that tell the runs of a sweep apart, in the order of the command line."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in (*COLUMNS, *MORE)))


def mixed(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Which of BESIDE the finished runs differ in, and how many runs have each value. Not the precision if the sweep
    varies it: then its rows name it."""
    finished = [row for row in rows if row["status"] in ("done", "pruned")]
    counts = {key: Counter(row[key] for row in finished if row.get(key)) for key in BESIDE}
    if "trainer.precision" in choices(rows):
        del counts["precision"]
    return {key: count for key, count in counts.items() if len(count) > 1}


def tested_rows(sweep: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows whose test figures may be compared. In a search, only that of the best run by validation images:
    comparing all its trials on test images would choose on them."""
    if not (sweep / SEARCH).exists():
        return list(rows)
    done = [row for row in rows if row["status"] == "done" and row["val_f1_macro"] != ""]
    return [max(done, key=lambda row: row["val_f1_macro"])] if done else []


def finished_metrics(sweep: Path) -> dict[str, dict[str, Any]]:
    """metrics.json of every run that is done and tested, by its name."""
    rows = [row for row in tested_rows(sweep, collect(sweep)) if row["status"] == "done"]
    metrics = {row["run"]: read_json(sweep / row["run"] / METRICS) for row in rows}
    return {name: of_run for name, of_run in metrics.items() if "test" in of_run}  # the trials of a search have none
