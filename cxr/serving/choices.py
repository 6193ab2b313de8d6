"""The networks that the option `ckpt` offers to choose from: runs, and the runs of a recipe together."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxr.errors import UserError
from cxr.options.checkpoint_paths import is_run, paths_in
from cxr.reporting.recipes import recipes_of
from cxr.reporting.rows import collect, validation_score
from cxr.training.checkpoints import BEST


class Choice(NamedTuple):
    """A network, or several that predict together.

    Attributes:
        paths: checkpoints or run folders, one for each network.
        name: the run's; of several, what their recipe has in common, or "".
        f1_macro: of a sweep's run, its macro F1 on test images; else None.
    """

    paths: Sequence[Path]
    name: str
    f1_macro: float | None = None


def choices_of(ckpt: str) -> list[Choice]:
    """What `ckpt` offers, the one to begin with first: several networks of one recipe together, else the run with the
    highest macro F1 on validation images.

    Raises:
        UserError: no run of a sweep is finished.
    """
    paths = [Path(text).expanduser() for text in paths_in(ckpt)]
    if len(paths) == 1 and not paths[0].is_file() and not is_run(paths[0]):
        return choices_of_sweep(paths[0])
    each = [Choice([path], path_name(path)) for path in paths]
    return [Choice(paths, ""), *each] if len(paths) > 1 else each


def choices_of_sweep(sweep: Path) -> list[Choice]:
    """What the folder of a sweep offers."""
    finished = [row for row in collect(sweep) if row["status"] == "done"]
    if not finished:
        raise UserError(f"ckpt={sweep}: no run of this sweep is finished")
    recipes = recipes_of(finished)
    rows = {recipe: [row for of_seed in seeds.values() for row in of_seed] for recipe, seeds in recipes.items()}
    together = [
        Choice([sweep / row["run"] for row in of_recipe], ", ".join(f"{key}={value}" for key, value in recipe))
        for recipe, of_recipe in rows.items()
        if len(of_recipe) > 1
    ]
    best_first = sorted(finished, key=validation_score, reverse=True)
    alone = [Choice([sweep / row["run"]], row["run"], row["f1_macro"] or None) for row in best_first]
    return [*together, *alone] if len(recipes) == 1 else [*alone, *together]


def path_name(path: Path) -> str:
    """The name of the run that a checkpoint or run folder belongs to, and of the checkpoint unless it is the best."""
    if not path.is_file():
        return path.resolve().name
    run = path.resolve().parent.parent
    if not is_run(run):
        return path.name
    return run.name if path.name == BEST else f"{run.name}, {path.name}"
