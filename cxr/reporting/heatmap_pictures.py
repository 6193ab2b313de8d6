"""Pictures of heatmaps: the image, and beside it the same image with what the map marks.

Faint parts of a map stay transparent, so that the lungs can be read below it, and a line encloses the tenth of the
image with the highest values, which the deletion test covers. One colour that grows stronger, not a rainbow: its bands
look like borders that are not there (Borland & Taylor 2007).
"""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import binary_erosion

from cxr.evaluation.heatmap_tests import marked
from cxr.reporting.figures import captioned_images

COLOUR, LINE = (255, 96, 0), (255, 225, 60)
STRONGEST = 0.6  # share of the colour where a map is 1
SIDE = 384  # pixels of each picture, at least: an image of 64 pixels would be a stamp
GAP = 8
PANEL_SIDE, DPI = 224, 120  # of a panel: at 100, as other figures have it, one would hardly see a lung


def beside(image: np.ndarray, heatmap: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image, uint8 (S, S), and on its right the same with its heatmap, float (S, S) from 0 to 1: uint8 RGB
    (L, 2 L + GAP, 3), where L is `side`, or S if that is more."""
    plain, marks = enlarged(image, side), overlay(image, heatmap, side)
    return np.concatenate([plain, np.full((len(plain), GAP, 3), 255, np.uint8), marks], axis=1)


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image, uint8 (S, S), as uint8 RGB (L, L, 3), where L is as for beside()."""
    side = max(side, len(image))
    grey = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    return np.repeat(grey[:, :, None], 3, axis=2)


def overlay(image: np.ndarray, heatmap: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image with its heatmap as in beside(): uint8 RGB (L, L, 3)."""
    plain = enlarged(image, side)
    side = len(plain)
    heat = np.array(Image.fromarray(heatmap.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR))
    alpha = STRONGEST * heat.clip(0, 1)[:, :, None]
    marks = plain * (1 - alpha) + np.array(COLOUR) * alpha
    if heat.any():
        inside = marked(heat[None])[0]
        marks[inside & ~binary_erosion(inside, iterations=max(1, side // 200), border_value=1)] = LINE
    return marks.round().astype(np.uint8)


def captioned(picture: np.ndarray, caption: str, note: str) -> Figure:
    """A picture of beside() below a line of text, and above a note."""
    return captioned_images(picture[None], [caption], "", note, columns=1)


def panel(
    hits: Sequence[tuple[np.ndarray, str]], mistakes: Sequence[tuple[np.ndarray, str]], title: str, note: str
) -> Figure:
    """Pictures of beside() with their captions: hits on the left, mistakes on the right; of one side at least one."""
    white = np.full_like((hits or mistakes)[0][0], 255)
    sides = (hits or [(white, "none")], mistakes or [(white, "none")])
    rows = zip_longest(*sides, fillvalue=(white, ""))
    pictures, captions = zip(*(cell for row in rows for cell in row), strict=True)
    fig = captioned_images(np.stack(pictures), captions, title, note, columns=2)
    fig.set_dpi(DPI)
    return fig
