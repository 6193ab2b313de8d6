"""python -m cxr.leaderboard DIR: rebuild a sweep's leaderboard from its run folders."""

import sys
from pathlib import Path

from cxr.errors import UserError
from cxr.jobs import slurm
from cxr.jobs.exit_codes import fail
from cxr.reporting.comparison import write_comparisons
from cxr.reporting.leaderboard import overview, write_leaderboard
from cxr.reporting.rows import collect


def main() -> None:
    """Exit codes: 0 written, 2 the folder is no sweep."""
    try:
        if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
            raise UserError("usage: python -m cxr.leaderboard DIR, the folder of a sweep")
        sweep = Path(sys.argv[1])
        jobs = slurm.running_jobs(sweep)
        if not (jobs or collect(sweep)):
            raise UserError(f"{sweep}: no run folders directly in it")
    except UserError as error:
        fail(error)
    rows, lines = write_leaderboard(sweep), write_comparisons(sweep)
    print(overview(sweep, rows))
    for line in lines:
        print(f"- {line}")
    if jobs:
        print(f"Slurm's jobs: {', '.join(slurm.states(jobs))}")


if __name__ == "__main__":
    main()
