"""The words of reports, in English or Korean, and their templates."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("en", "ko")


@cache
def words(lang: str, folder: Path = TEMPLATES) -> Mapping[str, str]:
    """All words and sentences of the words.yaml in a folder, in one language; figures stand as {name} in them."""
    table = OmegaConf.to_container(OmegaConf.load(folder / "words.yaml"))
    return {key: texts[LANGUAGES.index(lang)] for key, texts in table.items()}


def render(template: str, lang: str, values: Mapping[str, Any], folder: Path = TEMPLATES) -> str:
    """A template of a folder, filled in with its words and values; in HTML, values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not before it is needed

    engine = Environment(loader=FileSystemLoader(folder), autoescape=template.endswith(".html"), trim_blocks=True)
    engine.undefined = StrictUndefined
    return engine.get_template(template).render(lang=lang, w=words(lang, folder), **values)
