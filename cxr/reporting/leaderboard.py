"""leaderboard.csv and leaderboard.md: the runs of a sweep, and above them the grid, or the best trials of a search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from cxr.files.run_folder import LOCK, SEARCH
from cxr.files.writing import write_table, write_text
from cxr.reporting.markdown import in_short, inert, markdown_table, value_text
from cxr.reporting.rows import COLUMNS, COST, MORE, Row, choices, collect
from cxr.reporting.words import words

WIDE = 0.05  # of a macro F1: as far as the differences that are asked for
SHOWN = 10  # trials of a search that stand above all others


def write_leaderboard(sweep: Path) -> list[Row]:
    """Rewrite leaderboard.csv and leaderboard.md of a sweep, and return their rows. One process at a time, on any
    machine: rows that were read before another process wrote are older than those it wrote."""
    with FileLock(sweep / f"{LOCK}.leaderboard"):
        rows = collect(sweep)
        columns = [*choices(rows), *COLUMNS, *MORE]
        write_table(sweep / "leaderboard.csv", columns, [[row.get(key, "") for key in columns] for row in rows])
        write_text(sweep / "leaderboard.md", inert(as_markdown(rows, overview(sweep, rows))))
    return rows


def as_markdown(rows: Sequence[Row], first: str) -> str:
    """The text `first`, then one row a run."""
    columns = [*choices(rows), *(c for c in COLUMNS if c != "error" or any(row["error"] for row in rows))]
    costs = COST if any(row.get("parameters", "") != "" for row in rows) else ()
    table = [
        [*(value_text(row.get(c, "")) for c in columns), *(in_short(row.get(c, "")) for c in costs)] for row in rows
    ]
    columns += costs
    return f"# Leaderboard\n\n{first}\n\n{markdown_table(columns, table)}\n"


def overview(sweep: Path, rows: Sequence[Row]) -> str:
    """The best trials of a search, or the grid of any other sweep, and a sentence about them."""
    w = words("en")
    if not (sweep / SEARCH).exists():
        header, *lines = grid_rows(rows, w)
        return f"{markdown_table(header, lines)}\n\n{grid_sentence(rows, w)}"
    header, *lines = trial_rows(rows, w)
    return f"{markdown_table(header, lines[:SHOWN])}\n\n{trial_sentence(rows, w)}"


def trial_rows(rows: Sequence[Row], w: Mapping[str, str]) -> list[list[str]]:
    """The trials of a search, that with the highest macro F1 on validation images first, below their header."""
    ended = sorted(rows, key=lambda row: -1 if row["val_f1_macro"] == "" else row["val_f1_macro"], reverse=True)
    # An option that is equal in all trials does not explain why one is better.
    options = [key for key in choices(rows) if len({str(row.get(key)) for row in rows}) > 1]
    names = [key.rsplit(".", 1)[-1] for key in options]
    header = [name if names.count(name) == 1 else key for key, name in zip(options, names, strict=True)]
    lines = [
        [
            "" if row["val_f1_macro"] == "" else f"{row['val_f1_macro']:.4f}",
            *(value_text(row.get(key, "")) for key in options),
            row["status"],
        ]
        for row in ended
    ]
    return [[w["val_f1_macro"], *header, w["status"]], *lines]


def trial_sentence(rows: Sequence[Row], w: Mapping[str, str]) -> str:
    """What a search's table shows."""
    parts = [w["trials"]]
    if len(rows) > SHOWN:
        parts.append(w["best_trials"].format(shown=SHOWN, n=len(rows)))
    if diverged := sum("training diverged" in row["error"] for row in rows):
        parts.append(w["diverged"].format(diverged=diverged, n=len(rows)))
    if pruned := sum(row["status"] == "pruned" for row in rows):
        parts.append(w["pruned"].format(n=pruned))
    if failed := sum(row["status"] in ("failed", "lost") and "training diverged" not in row["error"] for row in rows):
        parts.append(w["unfinished"].format(failed=failed, n=len(rows)))
    return " ".join([*parts, *notes(rows, w)])


def grid_rows(rows: Sequence[Row], w: Mapping[str, str]) -> list[list[str]]:
    """Macro F1 by model and augmentation, below its header.

    Where a sweep has more options, each combination of their values is a line. A run of one seed stands with its
    interval. Runs that differ in the seed alone are one recipe: its mean, ± the standard deviation, and the seeds.
    """
    lines = list(dict.fromkeys(line_of(row) for row in rows))
    augs = list(dict.fromkeys(row.get("aug", "") for row in rows))
    table = []
    for line in lines:
        of_line = [row for row in rows if line_of(row) == line]
        table.append([line, *(recipe_text([row for row in of_line if row.get("aug", "") == aug], w) for aug in augs)])
    return [[w["f1_macro"], *(f"aug={aug}" for aug in augs)], *table]


def line_of(row: Row) -> str:
    """The name of a run's line in the grid: its model and every other choice but augmentation and seed."""
    more = [f"{key}={row[key]}" for key in choices([row]) if key not in ("model", "aug", "seed")]
    return ", ".join([str(row.get("model", "")), *more])


def recipe_text(rows: Sequence[Row], w: Mapping[str, str]) -> str:
    """The macro F1 of the runs of a recipe, or their status."""
    scores = [float(row["f1_macro"]) for row in rows if row["f1_macro"] != ""]
    if not scores:
        return ", ".join(dict.fromkeys(str(row["status"]) for row in rows)) or "–"
    if len({row.get("seed") for row in rows}) < len(rows):  # they differ in more than the seed
        return ", ".join(f"{score:.4f}" for score in scores)
    mean = sum(scores) / len(scores)
    if len(scores) == 1:
        (run,) = (row for row in rows if row["f1_macro"] != "")
        ends = run.get("f1_macro_low", ""), run.get("f1_macro_high", "")
        return f"{mean:.4f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends[0] != "" else "")
    deviation = (sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) ** 0.5
    return f"{mean:.4f} ± {deviation:.4f} ({w['n_seeds'].format(n=len(scores))})"


def grid_sentence(rows: Sequence[Row], w: Mapping[str, str]) -> str:
    """What the numbers in the grid are, and their limits."""
    one_seed = len({row.get("seed") for row in rows}) == 1
    parts = [w["grid"], w["grid_one_seed"] if one_seed else w["grid_seeds"]]
    spreads = [row["val_f1_spread"] for row in rows if row.get("val_f1_spread", "") != ""]
    if spreads and max(spreads) > WIDE:
        parts.append(w["wandered"].format(spread=f"{max(spreads):.3f}"))
    if diverged := sum("training diverged" in row["error"] for row in rows):
        parts.append(w["diverged"].format(diverged=diverged, n=len(rows)))
    if failed := sum(row["status"] in ("failed", "lost") for row in rows):
        parts.append(w["unfinished"].format(failed=failed, n=len(rows)))
    return " ".join([*parts, *notes(rows, w)])


def notes(rows: Sequence[Row], w: Mapping[str, str]) -> list[str]:
    """Remarks on the images, such as that they are drawn."""
    remarks = (w.get(note, note) for note in sorted({row["note"] for row in rows} - {""}))
    return [f"**{remark[0].upper()}{remark[1:]}.**" for remark in remarks]
