"""What report.html and MODEL_CARD.md say, in English or Korean, and their templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("en", "ko")


def words(lang: str) -> dict[str, str]:
    """Everything that templates say besides figures, in one language."""
    table = OmegaConf.load(TEMPLATES / "words.yaml")
    return {key: texts[LANGUAGES.index(lang)] for key, texts in table.items()}


def render(template: str, lang: str, values: Mapping[str, Any]) -> str:
    """A template filled in; what is told is escaped in HTML."""
    engine = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=template.endswith(".html"), trim_blocks=True)
    engine.undefined = StrictUndefined
    return engine.get_template(template).render(lang=lang, w=words(lang), **values)
