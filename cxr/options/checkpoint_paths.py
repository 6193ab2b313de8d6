"""The option `ckpt`: checkpoints, folders of runs and folders of sweeps, separated by commas."""

import os
from pathlib import Path

from cxr.files.run_folder import STATUS


def paths_in(ckpt: str) -> list[str]:
    """The paths of `ckpt`, as they were typed. The longest one that exists is taken each time, so that a path may
    contain commas itself."""
    parts, paths = ckpt.split(","), []
    while parts:
        longest = next((n for n in range(len(parts), 0, -1) if exists(",".join(parts[:n]))), 1)
        paths.append(",".join(parts[:longest]))
        parts = parts[longest:]
    return paths


def exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))  # of a text that is too long for a path, false


def holds_network(path: str) -> bool:
    """Whether a path is a file, or the folder of a run or of a sweep."""
    if path == "" or not exists(path):
        return False
    path = Path(path).expanduser()
    return path.is_file() or is_run(path) or any(path.glob(f"*/{STATUS}"))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / STATUS).is_file()
