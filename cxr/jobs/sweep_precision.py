"""One precision for all runs of a sweep, and for every start of a run."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from cxr.files.run_folder import LOCK, STATUS, SWEEP
from cxr.files.writing import read_json, write_json
from cxr.jobs.plan import Plan
from cxr.models.precision import best_precision, device_of, possible


def precision_of(plan: Plan) -> Any:
    """`trainer.precision` of a run. Where the option is auto: that in which the run began; else that of its sweep, or,
    for a run alone, the best one here. If this device cannot compute in it (the run or the sweep began on another),
    32-true, with a warning."""
    accelerator, precision = (plan.options["trainer"][key] for key in ("accelerator", "precision"))
    if precision != "auto":
        return precision
    began = read_json(plan.folder / STATUS).get("precision")
    precision = began or (of_sweep(plan.sweep, accelerator) if plan.sweep else best_precision(accelerator))
    return possible(precision, device_of(accelerator))


def of_sweep(sweep: Path, accelerator: str) -> str:
    """The precision of a sweep's runs, which sweep.json keeps: the first run that asks, on any machine, decides for the
    runs beside it, the runs after it and every later start."""
    with FileLock(sweep / f"{LOCK}.precision"):
        record = read_json(sweep / SWEEP)
        if "precision" not in record:
            record["precision"] = best_precision(accelerator)
            write_json(sweep / SWEEP, record)
        return record["precision"]
