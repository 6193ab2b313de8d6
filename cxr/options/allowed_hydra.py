"""Which of Hydra's own options (hydra.*) a command line and files below --config-dir may set. No torch here.

They are few, because Hydra's options name code, shell commands and files."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cxr.errors import UserError, one_line

ALLOWED = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose")
ADVICE = f"of Hydra's own options, only {', '.join(ALLOWED)} and hydra.launcher.NAME can be set, on the command line"
HEADER = re.compile(r"^\s*#\s*@.*", re.MULTILINE)


def check_word(override: Override) -> None:
    """Raise UserError for a word that sets one of Hydra's options, unless it is allowed."""
    word = override.input_line
    key = word.partition("=")[0].lstrip("+~")
    if "hydra" not in key or key in ALLOWED:
        return
    # The launcher is built from these: values only, no code. ${…} could become a _target_ later.
    if not key.startswith("hydra.launcher.") or "@" in key or "_target_" in word or "${" in word:
        raise UserError(f"{word}: {ADVICE}")


def check_folder(folder: Path) -> None:
    """Raise UserError if a YAML file below a folder of choices reaches Hydra's options: by a key, a package, its list
    of defaults or its place."""
    for path in yaml_files(folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        except (OmegaConfBaseException, YAMLError, ValueError) as error:
            raise UserError(f"{path}: {one_line(error)}") from error
        content = content if isinstance(content, dict) else {}
        place = path.relative_to(folder).parts[:-1]
        names = [*place, *HEADER.findall(text), *map(str, content), *default_keys(content)]
        if wrong := next((name for name in names if "hydra" in name or "${" in name), None):
            raise UserError(f"{path}: {wrong}: {ADVICE}; remove it from this file")


def yaml_files(folder: Path) -> Iterator[Path]:
    """All YAML files below a folder, also behind links, as Hydra finds them."""
    seen: set[str] = set()  # links may lead in circles
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(where, name)) not in seen]
        seen.update(os.path.realpath(os.path.join(where, name)) for name in folders)
        yield from (Path(where, name) for name in sorted(files) if name.endswith(".yaml"))


def default_keys(content: dict[str, Any]) -> list[str]:
    """The groups and packages in the list of defaults of a file; plain entries name a file in its own folder."""
    defaults = content.get("defaults") or []
    if not isinstance(defaults, list):
        return []
    return [str(key) for entry in defaults for key in (entry if isinstance(entry, dict) else [entry])]
