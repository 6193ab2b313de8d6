"""How every picture is set up: its size, its fonts, and words that are drawn as they are, cut where they would overlap.

Figures are built as objects, never through pyplot, which keeps every figure alive until it is closed. All are
800 px wide, as TensorBoard and the README show them.
"""

import textwrap
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

WIDTH = 8.0  # inches, at 100 dots an inch
# matplotlib's own font has no Hangul: the fonts that Linux, Windows and macOS have it in.
HANGUL_FONTS = ["Noto Sans CJK KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic"]


def figure(height: float, title: str, note: str) -> Figure:
    """An empty figure with title and footer; constrained layout keeps room for both."""
    footer = textwrap.fill(note, 80)
    height += 0.16 * len(footer.splitlines())
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    fig = Figure((WIDTH, height), dpi=100, layout=layout)
    fig.suptitle(fit(title, WIDTH * 72 - 20, 12, "bold"), fontsize=12, fontweight="bold")
    if footer:
        footer = fit(footer, WIDTH * 72 - 20, 9, "bold")
        fig.supxlabel(footer, fontsize=9, fontweight="bold", color="#A63C00")
    return fig


def finish(fig: Figure) -> Figure:
    """Have every text drawn as it is: `a$1$_b` is a file, not a formula."""
    for text in fig.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(fonts()[0])
    return fig


@cache
def fonts() -> tuple[list[str], frozenset[int]]:
    """The font families to draw with, first choice first, and the characters that they have."""
    installed = set(font_manager.fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in HANGUL_FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    return families, frozenset().union(*(font.get_charmap() for font in fonts))


def fit(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Cut lines wider than `room` points at font size `size`, in the middle: file names differ at their ends.

    A character that no font has becomes a box here, or matplotlib would warn of it at every drawing.
    """
    families, drawable = fonts()
    font = font_manager.FontProperties(family=families, size=size, weight=weight)

    def width(line: str) -> float:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]

    lines = []
    for line in unicodedata.normalize("NFC", text).split("\n"):  # macOS takes Hangul names apart into letters
        line = "".join(c if ord(c) in drawable else "□" for c in line)
        if width(line) > room:
            cuts = [f"{line[: (n + 1) // 2]}…{line[len(line) - n // 2 :]}" for n in range(len(line))]
            line = cuts[max(bisect(cuts, room, key=width) - 1, 0)]
        lines.append(line)
    return "\n".join(lines)


def name_classes(axes: Axes, classes: Sequence[str], room: float) -> None:
    """Class names along the x axis, `room` points each; slanted where one does not fit lying."""
    names = [fit(name, 110, 9) for name in classes]
    slanted = any(fit(name, room - 6, 9) != name for name in names)
    turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, fontsize=min(9, room), **turn)


def style_plot(axes: Axes, grid: str) -> None:
    """Light grid behind the data, no box around it, the legend beside it where it hides nothing."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E3E3E3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)
