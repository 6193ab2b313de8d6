"""The networks of timm, by name: read from its source, since importing it would import torch."""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cxr.errors import UserError

TARGET = "cxr.models.timm.timm_network"


def check_timm(options: Mapping[str, Any]) -> None:
    """Raise UserError where timm is not installed, or has no network of the name `options["name"]`. A tag behind a dot
    is timm's to check; names that lead elsewhere (hf-hub:…, local-dir:…) are not names of networks."""
    if importlib.util.find_spec("timm") is None:
        raise UserError("model=timm needs timm: pip install timm")
    typed = str(options["name"])
    names = timm_names()
    if re.fullmatch(r"\w+(\.\w+)?", typed) and typed.partition(".")[0] in names:
        return
    near = difflib.get_close_matches(re.split(r"[/:\\]", typed)[-1].partition(".")[0], sorted(names), n=3, cutoff=0.5)
    advice = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
    raise UserError(f"model.name={typed}: timm has no network of this name; {advice}")


@cache
def timm_names() -> frozenset[str]:
    """The names of timm.list_models(): every function that its source registers as a network."""
    folder = Path(importlib.util.find_spec("timm").submodule_search_locations[0], "models")
    sources = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    return frozenset(n for text in sources for n in re.findall(r"^@register_model\s*\ndef (\w+)\(", text, re.MULTILINE))
