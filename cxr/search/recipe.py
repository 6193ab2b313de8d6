"""The result of a search: experiment/best.yaml, the options of its best trial."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxr.errors import UserError
from cxr.files.writing import write_text
from cxr.search.study import Study

BEST = Path("experiment", "best.yaml")
# Options of how a command runs, which are no part of a recipe.
NOT_IN_RECIPE = ("name", "resume", "cache_dir", "isolate", "n", "slurm", "report")
NOT_IN_RECIPE += ("n_trials", "storage", "study", "sampler", "pruner", "trial", "ranges")


def write_recipe(study: Study, compose_run: Callable[[Sequence[str]], tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Write search.json and best.yaml, and return the command that trains the best options again.

    Args:
        compose_run: from words to the choices and the options of the run that they ask for.

    Raises:
        UserError: no trial was completed.
    """
    trials, best = study.write_record(), study.best()
    if not best:
        raise UserError(f"{study.folder}: every trial failed or diverged, so there is no best one")
    run = next(trial["run"] for trial in trials if trial["number"] == best.number)
    choices, options = compose_run([*study.search.fixed, *study.params(best)])
    recipe = {key: value for key, value in options.items() if key not in NOT_IN_RECIPE}
    groups = [key for key in choices if "/" not in key and key not in ("experiment", "hparams", "launcher")]
    defaults = [{f"override /{group}": choices[group]} for group in sorted(groups)]
    again = shlex.join(["python", "-m", "cxr.train", "--config-dir", str(study.folder), "experiment=best"])
    header = (
        "# @package _global_\n"
        f"# Trial {best.number}, the best of {len(trials)} of the search {study.name}:\n"
        f"# macro F1 {best.value:.4f} on validation images. Nothing was chosen on test images.\n"
        f"# Its run: {run or 'on another machine'}\n"
        f"# To train it again: {again}\n"
    )
    (study.folder / BEST).parent.mkdir(exist_ok=True)
    text = yaml.safe_dump({"defaults": defaults, **recipe}, sort_keys=False, allow_unicode=True)
    write_text(study.folder / BEST, header + text)
    return again
