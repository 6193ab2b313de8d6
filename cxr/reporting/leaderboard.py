"""The table of a sweep, made from its run folders alone, so that any process can make it at any time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from cxr.files.run_folder import HEADLINES, LOCK, METRICS, SEARCH, STATUS
from cxr.files.status import read_status
from cxr.files.writing import part_of, read_json, write_table

COLUMNS = ("status", "error", *HEADLINES, "epochs", "seconds", "images_per_s", "run")
# Behind the columns that others read by position: the ends of macro F1's 95 % interval; late_spread(); ImageTable.note;
# macro F1 on validation images; and the cost of the network: parameters, FLOPs per image.
COST = ("parameters", "flops")
MORE = ("f1_macro_low", "f1_macro_high", "val_f1_spread", "note", "val_f1_macro", *COST)
WIDE = 0.05  # of a macro F1: as far as the differences that are asked for

SHOWN = 10  # trials of a search that stand above all others

Row = dict[str, Any]


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
        **{key: metrics.get("network", {}).get(key, "") for key in COST},  # runs of earlier versions have none
        "val_f1_macro": (metrics.get("val") or {}).get("f1_macro", unknown),
    }


def late_spread(figures: Sequence[float]) -> float | str:
    """How far a figure wandered over the last third of the epochs: its highest less its lowest value; "" of too few."""
    last = figures[-max(len(figures) // 3, 2) :]
    return max(last) - min(last) if len(figures) > 2 else ""


def write(sweep: Path) -> list[Row]:
    """Rewrite leaderboard.csv and leaderboard.md of a sweep, and return their rows. One process at a time, on whatever
    machine: what it read before another wrote would be older than what it replaces."""
    part = part_of(sweep / "leaderboard")
    with FileLock(sweep / f"{LOCK}.leaderboard"):
        rows = collect(sweep)
        header = [*choices(rows), *COLUMNS]
        write_table(part, [*header, *MORE], [[row.get(key, "") for key in (*header, *MORE)] for row in rows])
        part.replace(sweep / "leaderboard.csv")
        part.write_text(inert(as_markdown(rows, head(sweep, rows))), encoding="utf-8")
        part.replace(sweep / "leaderboard.md")
    return rows


def choices(rows: Sequence[Row]) -> list[str]:
    """The options that the runs of a sweep were told, in the order of the command line."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in (*COLUMNS, *MORE)))


def as_markdown(rows: Sequence[Row], first: str) -> str:
    """What head() returned, then a row a run."""
    columns = [*choices(rows), *(c for c in COLUMNS if c != "error" or any(row["error"] for row in rows))]
    costs = COST if any(row.get("parameters", "") != "" for row in rows) else ()
    table = [[*(shown(row.get(c, "")) for c in columns), *(in_short(row.get(c, "")) for c in costs)] for row in rows]
    columns += costs
    return f"# Leaderboard\n\n{first}\n\n{markdown_table(columns, table)}\n"


def head(sweep: Path, rows: Sequence[Row]) -> str:
    """What a sweep was made for: of a search the best trials, of any other the grid."""
    if not (sweep / SEARCH).exists():
        return grid(rows)
    header, *lines = trial_rows(rows)
    return f"{markdown_table(header, lines[:SHOWN])}\n\n{trial_sentence(rows)}"


def trial_rows(rows: Sequence[Row]) -> list[list[str]]:
    """The trials of a search, that with the highest macro F1 on validation images first, below their header."""
    ended = sorted(rows, key=lambda row: -1 if row["val_f1_macro"] == "" else row["val_f1_macro"], reverse=True)
    # What all have in common says nothing of why one is better.
    options = [key for key in choices(rows) if len({str(row.get(key)) for row in rows}) > 1]
    names = [key.rsplit(".", 1)[-1] for key in options]
    header = [name if names.count(name) == 1 else key for key, name in zip(options, names, strict=True)]
    scores = ["" if row["val_f1_macro"] == "" else f"{row['val_f1_macro']:.4f}" for row in ended]
    lines = [
        [score, *(shown(row.get(key, "")) for key in options), row["status"]]
        for row, score in zip(ended, scores, strict=True)
    ]
    return [["validation macro F1", *header, "status"], *lines]


def trial_sentence(rows: Sequence[Row]) -> str:
    """What has to be said of a search's table."""
    parts = [
        "Best first, by macro F1 on validation images: the best of many trials, so higher than the same options would "
        "get on others. Test images chose nothing."
    ]
    if len(rows) > SHOWN:
        parts.append(f"The {SHOWN} best of {len(rows)} runs.")
    if diverged := sum("training diverged" in row["error"] for row in rows):
        parts.append(f"{diverged} diverged, which counts as 0.")
    if pruned := sum(row["status"] == "pruned" for row in rows):
        parts.append(f"{pruned} pruned: stopped early, since others were better by then.")
    if failed := sum(row["status"] in ("failed", "lost") and "training diverged" not in row["error"] for row in rows):
        parts.append(f"{failed} failed.")
    return " ".join([*parts, *notes(rows)])


def grid(rows: Sequence[Row]) -> str:
    """The capstone's own table, and a sentence on what the number is."""
    header, *lines = grid_rows(rows)
    return f"{markdown_table(header, lines)}\n\n{sentence(rows)}"


def opened(sweep: Path, rows: Sequence[Row]) -> list[Row]:
    """The runs of which test images say something: of a search only the best one by validation images. Who compares all
    its trials on test images chooses on them."""
    if not (sweep / SEARCH).exists():
        return list(rows)
    done = [row for row in rows if row["status"] == "done" and row["val_f1_macro"] != ""]
    return [max(done, key=lambda row: row["val_f1_macro"])] if done else []


def finished(sweep: Path) -> dict[str, dict[str, Any]]:
    """metrics.json of every run that is done, by its name; of earlier versions' runs, those that have give-aways."""
    rows = [row for row in opened(sweep, collect(sweep)) if row["status"] == "done"]
    found = {row["run"]: read_json(sweep / row["run"] / METRICS) for row in rows}
    return {name: metrics for name, metrics in found.items() if "shortcuts" in metrics}


def grid_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Macro F1 by model and augmentation, below its header.

    Where a sweep has more options, each combination of their values is a line. A run of one seed stands with its
    interval. Runs that differ in the seed alone share a cell: its mean, ± the standard deviation, and how many seeds.
    """
    lines = list(dict.fromkeys(line_of(row) for row in rows))
    augs = list(dict.fromkeys(row.get("aug", "") for row in rows))
    table = []
    for line in lines:
        line_rows = [row for row in rows if line_of(row) == line]
        table.append([line, *(cell([row for row in line_rows if row.get("aug", "") == aug]) for aug in augs)])
    return [["macro F1", *(f"aug={aug}" for aug in augs)], *table]


def line_of(row: Row) -> str:
    """What a run's line of the grid is called: its model and every other choice but augmentation and seed."""
    more = [f"{key}={row[key]}" for key in choices([row]) if key not in ("model", "aug", "seed")]
    return ", ".join([str(row.get("model", "")), *more])


def cell(rows: Sequence[Row]) -> str:
    """The runs of a cell as text: the mean of their macro F1, or their status."""
    scores = [float(row["f1_macro"]) for row in rows if row["f1_macro"] != ""]
    if not scores:
        return ", ".join(dict.fromkeys(str(row["status"]) for row in rows)) or "–"
    if len({row.get("seed") for row in rows}) < len(rows):  # not one question asked with several seeds
        return ", ".join(f"{score:.4f}" for score in scores)
    mean = sum(scores) / len(scores)
    if len(scores) == 1:
        (run,) = (row for row in rows if row["f1_macro"] != "")
        ends = run.get("f1_macro_low", ""), run.get("f1_macro_high", "")
        return f"{mean:.4f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends[0] != "" else "")
    deviation = (sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) ** 0.5
    return f"{mean:.4f} ± {deviation:.4f} ({len(scores)} seeds)"


def sentence(rows: Sequence[Row]) -> str:
    """What the number in the grid is, and what has to be said about it."""
    seeds = len({row.get("seed") for row in rows})
    parts = [
        "Macro F1 is the plain mean of the classes' F1 on the test images, which were opened once, after training.",
        "[low, high]: 95 % interval over patients, of one trained network: another seed would have given another."
        if seeds == 1
        else "± is the standard deviation over seeds.",
    ]
    spreads = [row["val_f1_spread"] for row in rows if row.get("val_f1_spread", "") != ""]
    if spreads and max(spreads) > WIDE:
        parts.append(
            f"Over the last third of its epochs, validation macro F1 of one run wandered by {max(spreads):.3f}: there, "
            "the last epoch is a lottery."
        )
    if diverged := sum("training diverged" in row["error"] for row in rows):
        parts.append(f"{diverged} of {len(rows)} diverged, which counts as 0.")
    if failed := sum(row["status"] in ("failed", "lost") for row in rows):
        parts.append(f"{failed} of {len(rows)} runs did not finish.")
    return " ".join([*parts, *notes(rows)])


def notes(rows: Sequence[Row]) -> list[str]:
    """What has to be said of the images, as that they are drawn ones."""
    return [f"**{note[0].upper()}{note[1:]}.**" for note in sorted({row["note"] for row in rows} - {""})]


def shown(value: Any) -> str:
    """A value as a person reads it in a table."""
    text = (
        f"{value:.4g}"
        if isinstance(value, float) and not 1000 <= abs(value) < 1e7
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
    return " ".join(text.split())


def in_short(number: int | str) -> str:
    """A large number to three digits, such as 11.2 M or 3.46 G; "" of what is not known."""
    if number == "":
        return ""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if float(number) >= 0.9995 * size:
            return f"{float(number) / size:#.3g}".rstrip(".") + unit
    return str(number)


def inert(text: str) -> str:
    """Markdown without what names of files and classes could bring into it: HTML, links and pictures."""
    return text.replace("<", "&lt;").replace("](", "]&#40;")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns also line up as plain text."""
    table = [[str(cell).replace("|", "\\|") for cell in line] for line in [header, *rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in table]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
