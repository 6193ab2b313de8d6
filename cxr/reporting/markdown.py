"""Values and their intervals as text, and Markdown tables of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def value_text(value: Any) -> str:
    """A value as it stands in a table."""
    text = (
        f"{value:.4g}"
        if isinstance(value, float) and not 1000 <= abs(value) < 1e7
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
    return " ".join(text.split())


def with_interval(figures: Mapping[str, Any], key: str) -> str:
    """A figure with its interval."""
    return f"{figures[key]:.3f} {interval_text(figures['ci95'][key])}".replace("-", "−")


def interval_text(ends: Sequence[float], end_text: Callable[[float], str] = "{:.3f}".format) -> str:
    """[low, high] with three digits."""
    return f"[{end_text(ends[0])}, {end_text(ends[1])}]".replace("-", "−")


def threshold_text(threshold: float) -> str:
    """A probability as a threshold: with the digits that keep it apart from 1, which is no threshold."""
    digits = 3 if threshold < 0.995 or threshold >= 1 else 2 - math.floor(math.log10(1 - threshold))
    return f"{threshold:.3g}" if digits == 3 else f"{threshold:.{digits}f}".rstrip("0")


def with_sign(difference: float) -> str:
    """A difference with three digits and its sign."""
    return f"{difference:+.3f}".replace("-", "−")


def in_short(number: int | str) -> str:
    """A large number to three digits, such as 11.2 M or 3.46 G; "" stays "", which means unknown."""
    if number == "":
        return ""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if float(number) >= 0.9995 * size:
            return f"{float(number) / size:#.3g}".rstrip(".") + unit
    return str(number)


def some_of(names: Sequence[str], and_more: str, most: int = 3) -> str:
    """The first names, and how many more there are in the words `and_more`."""
    more = [and_more.format(n=len(names) - most)] * (len(names) > most)
    return ", ".join([*names[:most], *more])


def inert(text: str) -> str:
    """Disable HTML, links and pictures, which names of files and classes could bring into Markdown."""
    return text.replace("<", "&lt;").replace("](", "]&#40;")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns also line up as plain text."""
    table = [[str(cell).replace("|", "\\|") for cell in line] for line in [header, *rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in table]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
