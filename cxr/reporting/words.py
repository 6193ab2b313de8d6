"""The words of reports, in English or Korean, and their templates."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("en", "ko")


Words = Mapping[str, str]


def words(lang: str, folder: Path = TEMPLATES) -> Words:
    """All words and sentences of the words.yaml in a folder, in one language; figures stand as {name} in them."""
    return read_words(folder)[lang]


@cache
def read_words(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """Those of all languages. (Read by libyaml where there is one: in Python, 200 lines take a quarter of a second.)"""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table = yaml.load((folder / "words.yaml").read_text(encoding="utf-8"), Loader=loader)
    return {lang: {key: texts[i] for key, texts in table.items()} for i, lang in enumerate(LANGUAGES)}


def render(template: str, lang: str, values: Mapping[str, Any], folder: Path = TEMPLATES) -> str:
    """A template of a folder, filled in with its words and values; in HTML, values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not before it is needed

    engine = Environment(loader=FileSystemLoader(folder), autoescape=template.endswith(".html"), trim_blocks=True)
    engine.undefined = StrictUndefined
    return engine.get_template(template).render(lang=lang, w=words(lang, folder), **values)
