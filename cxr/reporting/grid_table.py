"""The grid of a sweep: macro F1 by model and augmentation, and what the runs of each recipe are worth together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.files.run_folder import COMPARISONS, HEADLINES
from cxr.files.writing import read_json
from cxr.reporting.markdown import interval_text, with_sign
from cxr.reporting.rows import REPEATED, Row, choices, mixed

HOLD_OUT = "data.hold_out"
WIDE = 0.05  # of a macro F1: as far as the differences that are asked for
Summary = Mapping[str, Any]  # one of the "recipes" of comparisons.json, see summarise()


def finished_recipes(sweep: Path, rows: Sequence[Row], part: str = "recipes") -> list[Summary]:
    """The "recipes" (or "transfers") of comparisons.json that still hold: no run of theirs diverged, or was trained
    since."""
    lines: dict[str, set[str]] = {}
    for row in rows:
        if row["f1_macro"] != "":
            lines.setdefault(cell_of(row), set()).add(row["run"])
    runs = [*lines.values()]
    return [summary for summary in read_json(sweep / COMPARISONS).get(part, []) if {*summary["runs"]} in runs]


def grid_rows(rows: Sequence[Row], w: Mapping[str, str], recipes: Sequence[Summary] = ()) -> list[list[str]]:
    """Macro F1 by model and augmentation, below its header.

    Where a sweep has more options, each combination of their values is a line. A run of one seed stands with its
    interval. Runs that differ in seed or fold alone are one recipe, see recipe_text().
    """
    lines = list(dict.fromkeys(line_of(row) for row in rows))
    augs = list(dict.fromkeys(row.get("aug", "") for row in rows))
    table = []
    for line in lines:
        of_line = [row for row in rows if line_of(row) == line]
        cells = ([row for row in of_line if row.get("aug", "") == aug] for aug in augs)
        table.append([line, *(recipe_text(cell, w, recipes) for cell in cells)])
    return [[w["f1_macro"], *(f"aug={aug}" for aug in augs)], *table]


def line_of(row: Row) -> str:
    """The name of a run's line in the grid: its model and every other choice but augmentation, seed and fold."""
    more = [f"{key}={row[key]}" for key in choices([row]) if key not in ("model", "aug", *REPEATED)]
    return ", ".join([str(row.get("model", "")), *more])


def cell_of(row: Row) -> str:
    """The name of a run's recipe."""
    return line_of(row) + (f", aug={row['aug']}" if "aug" in row else "")


def recipe_text(rows: Sequence[Row], w: Mapping[str, str], recipes: Sequence[Summary]) -> str:
    """The macro F1 of the runs of a recipe, or their status."""
    scored = [row for row in rows if row["f1_macro"] != ""]
    scores = [float(row["f1_macro"]) for row in scored]
    if not scores:
        return ", ".join(dict.fromkeys(str(row["status"]) for row in rows)) or "–"
    for summary in recipes:
        if {*summary["runs"]} == {row["run"] for row in scored}:
            return f"{figure_text(summary['f1_macro'])} ({networks_text(summary, w)})"
    if len(scores) == 1:
        ends = scored[0].get("f1_macro_low", ""), scored[0].get("f1_macro_high", "")
        return f"{scores[0]:.4f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends[0] != "" else "")
    if len({row.get("seed") for row in scored}) < len(scores):  # folds: those that are done
        return ", ".join(f"{score:.4f}" for score in scores)
    mean = sum(scores) / len(scores)
    deviation = (sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) ** 0.5
    return f"{mean:.4f} ± {deviation:.4f} ({w['n_seeds'].format(n=len(scores))})"


def figure_text(figure: Mapping[str, Any]) -> str:
    """A figure of a recipe: mean ± standard deviation over seeds [interval]."""
    spread = f" ± {figure['sd']:.4f}" if "sd" in figure else ""
    return f"{figure['mean']:.4f}{spread} [{figure['ci95'][0]:.3f}, {figure['ci95'][1]:.3f}]"


def difference_text(result: Mapping[str, Any]) -> str:
    """A result of paired_difference(): +0.012 [−0.003, +0.027]."""
    return f"{with_sign(result['difference'])} {interval_text(result['ci95'], with_sign)}"


def pair_name(pair: Mapping[str, Any], w: Mapping[str, str]) -> str:
    """What one of the "pairs" of comparisons.json compares: aug=on against off (cnn)."""
    where = ", ".join(value if key == "model" else f"{key}={value}" for key, value in pair["where"].items())
    return w["against"].format(**pair) + (f" ({where})" if where else "")


def networks_text(summary: Summary, w: Mapping[str, str]) -> str:
    """3 seeds, 5 folds, or both."""
    parts = [w["n_seeds"].format(n=summary["seeds"])] * (summary["seeds"] > 1)
    return ", ".join(parts + [w["n_folds"].format(n=summary["folds"])] * (summary["folds"] > 1))


def recipe_rows(recipes: Sequence[Summary], w: Mapping[str, str]) -> list[list[str]]:
    """Macro F1 and accuracy of each recipe of several runs, below their header; of several seeds also those of the
    ensemble, which costs no training."""
    table = []
    for summary in recipes:
        name, networks = cell_of(summary["recipe"]), networks_text(summary, w)
        table.append([name, networks, *(figure_text(summary[key]) for key in HEADLINES[:2])])
        if "ensemble" in summary:
            table.append([name, w["ensemble_of"].format(networks=networks)])
            table[-1] += [figure_text(summary["ensemble"][key]) for key in HEADLINES[:2]]
            if gain := summary["ensemble"].get("gain"):  # a comparisons.json of an earlier version has none
                table.append([name, w["ensemble_gain"].format(networks=networks)])
                table[-1] += [difference_text(gain[key]) for key in HEADLINES[:2]]
    return [[w["recipe"], w["networks"], w["f1_macro"], w["accuracy"]], *table]


def transfer_rows(transfers: Sequence[Summary], w: Mapping[str, str]) -> list[list[str]]:
    """Macro F1 inside and outside and the transfer gap of each recipe with a hospital held out, below their header; the
    recall, where only one class can be compared."""
    table = []
    for part in transfers:
        one = len(part["classes"]) == 1
        key, name = ("accuracy", w["recall"]) if one else ("f1_macro", w["f1_macro"])
        recipe = {option: value for option, value in part["recipe"].items() if option != HOLD_OUT}
        gap = part["gap"][key]
        spread = f" ± {gap['sd']:.3f}" if "sd" in gap else ""
        table.append([
            part.get("hold_out", part["recipe"].get(HOLD_OUT, "")),  # an earlier version had the swept ones alone
            cell_of(recipe),
            str(part["seeds"]),
            f"{name}, {', '.join(part['classes'])}",
            *(figure_text(part[side][key]) for side in ("inside", "outside")),
            f"{with_sign(gap['mean'])}{spread} {interval_text(gap['ci95'], with_sign)}",
        ])  # fmt: skip
    header = ["held_out", "recipe", "seeds", "figure", "inside", "outside", "transfer_gap"]
    return [[w[word] for word in header], *table] if table else []


def grid_sentence(rows: Sequence[Row], w: Mapping[str, str]) -> str:
    """What the numbers in the grid are, and their limits."""
    folds = any("data.fold" in row for row in rows)
    parts = [w["grid"], w["grid_folds"]] if folds else [w["grid"]]
    if len({row.get("seed") for row in rows}) > 1:
        parts.append(w["grid_seeds"])
    elif not folds:
        parts.append(w["grid_one_seed"])
    spreads = [row["val_f1_spread"] for row in rows if row.get("val_f1_spread", "") != ""]
    if spreads and max(spreads) > WIDE:
        parts.append(w["wandered"].format(spread=f"{max(spreads):.3f}"))
    if diverged := sum("training diverged" in row["error"] for row in rows):
        parts += [w["diverged"].format(diverged=diverged, n=len(rows)), w["diverged_compared"]]
    if failed := sum(row["status"] in ("failed", "lost") for row in rows):
        parts.append(w["unfinished"].format(failed=failed, n=len(rows)))
    return " ".join([*parts, *notes(rows, w)])


def notes(rows: Sequence[Row], w: Mapping[str, str]) -> list[str]:
    """Remarks on the images, such as that they are drawn; and on runs that were computed in different ways."""
    remarks = [w.get(note, note) for note in sorted({row["note"] for row in rows} - {""})]
    if differing := mixed(rows):
        parts = (f"{w[f'mixed_{key}']} ({runs_text(count, w)})" for key, count in differing.items())
        remarks.append(w["mixed"].format(what=", ".join(parts)))
    return [f"**{remark[0].upper()}{remark[1:]}.**" for remark in remarks]


def runs_text(counts: Mapping[str, int], w: Mapping[str, str]) -> str:
    """How many runs have each value: bf16-mixed: 3 runs, 32-true: 1 run."""
    return ", ".join(f"{value}: {w['one_run' if n == 1 else 'n_runs'].format(n=n)}" for value, n in counts.items())
