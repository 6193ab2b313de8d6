"""leaderboard.csv and leaderboard.md: the runs of a sweep, and above them the grid, or the best trials of a search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from cxr.files.run_folder import LOCK, SEARCH
from cxr.files.writing import write_table, write_text
from cxr.reporting.grid_table import finished_recipes, grid_rows, grid_sentence, notes, recipe_rows, transfer_rows
from cxr.reporting.markdown import in_short, inert, markdown_table, value_text
from cxr.reporting.rows import COLUMNS, COST, MORE, TRANSFER, Row, choices, collect
from cxr.reporting.words import words

SHOWN = 10  # trials of a search that stand above all others


def write_leaderboard(sweep: Path, comparisons: Sequence[str] = ()) -> list[Row]:
    """Rewrite leaderboard.csv and leaderboard.md of a sweep, and return their rows. One process at a time, on any
    machine: rows that were read before another process wrote are older than those it wrote.

    Args:
        comparisons: sentences for the end of leaderboard.md.
    """
    with FileLock(sweep / f"{LOCK}.leaderboard"):
        rows = collect(sweep)
        columns = [*choices(rows), *COLUMNS, *MORE]
        write_table(sweep / "leaderboard.csv", columns, [[row.get(key, "") for key in columns] for row in rows])
        text = as_markdown(rows, overview(sweep, rows))
        if comparisons:
            text += "\n## Comparisons\n\n" + "\n".join(f"- {line}" for line in comparisons) + "\n"
        write_text(sweep / "leaderboard.md", inert(text))
    return rows


def as_markdown(rows: Sequence[Row], first: str) -> str:
    """The text `first`, then one row per run."""
    columns = [*choices(rows), *(c for c in COLUMNS if c != "error" or any(row["error"] for row in rows))]
    columns += TRANSFER[:2] if any(row["transfer_gap"] != "" for row in rows) else ()
    costs = COST if any(row.get("parameters", "") != "" for row in rows) else ()
    table = [
        [*(value_text(row.get(c, "")) for c in columns), *(in_short(row.get(c, "")) for c in costs)] for row in rows
    ]
    columns += costs
    return f"# Leaderboard\n\n{first}\n\n{markdown_table(columns, table)}\n"


def overview(sweep: Path, rows: Sequence[Row]) -> str:
    """The best trials of a search, or the grid of any other sweep and its recipes, and a sentence about them."""
    w = words("en")
    if (sweep / SEARCH).exists():
        header, *lines = trial_rows(rows, w)
        parts = [markdown_table(header, lines[:SHOWN]), trial_sentence(rows, w)]
    else:
        recipes = finished_recipes(sweep, rows)
        header, *lines = grid_rows(rows, w, recipes)
        parts = [markdown_table(header, lines), grid_sentence(rows, w)]
        header, *lines = recipe_rows(recipes, w)
        parts += [markdown_table(header, lines)] if lines else []
        if gaps := transfer_rows(finished_recipes(sweep, rows, "transfers"), w):
            parts += [markdown_table(gaps[0], gaps[1:]), w["transfer_note"]]
    return "\n\n".join(parts)


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
