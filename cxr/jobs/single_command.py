"""Commands that have one run folder and no sweeps: cxr.audit, cxr.evaluate."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cxr.errors import UserError
from cxr.files.status import explained
from cxr.jobs.exit_codes import answering
from cxr.options.composing import compose_runs, plain


def run_single(work: Callable[[dict[str, Any], Path], None], usage: str, config_name: str = "config") -> None:
    """Check the options, make the run folder, and call `work(options, folder)`. A failure leaves no empty folder.
    Prints `usage` for --help; exit codes as in the README."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(usage)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with answering():
        (config,) = compose_runs(sys.argv[1:], False, config_name)
        folder = Path(config.hydra.run.dir)
        reserve_folder(folder)
        try:
            with explained(folder):
                work(plain(config), folder)
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def reserve_folder(folder: Path) -> None:
    """Make the output folder. Raises UserError if it cannot be made or is not empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); choose another name=NAME or folder"
        ) from error
    if used:
        raise UserError(f"{folder}: this folder is already used; choose another name=NAME, or move it away")
