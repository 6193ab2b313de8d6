"""Draw one chest image.

The images are hard in the way real ones are: anatomy, pose and exposure vary far more than the finding does, so that
comparing whole pictures fails where a network that looks for the finding succeeds. What augmentation changes (side,
turn, place) varies freely, and training patients are few, so augmentation must help.

Everything is drawn in body coordinates: `u` to the right and `v` downwards, both 0 in the middle of the chest and about
1 at the edge of the image. An image is a sum of densities, so brighter means denser.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Map = NDArray[np.float32]  # one value per pixel, float32 [H, W]


def grid(height: int, width: int, shot: Generator) -> tuple[Map, Map]:
    """Body coordinates u, v of every pixel, [H, W] each, for a patient who never stands quite straight."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    unit = (height * width) ** 0.5 / 2 * shot.uniform(0.82, 1.18)
    x, y = (x - width / 2) / unit - shot.normal(0, 0.144), (y - height / 2) / unit - shot.normal(0, 0.144)
    cos, sin = np.cos(turn := shot.normal(0, np.radians(9.6))), np.sin(turn)
    return np.float32(cos) * x + np.float32(sin) * y, np.float32(cos) * y - np.float32(sin) * x


def chest(label: str, u: Map, v: Map, body: Generator, shot: Generator) -> Map:
    """Density of a patient's chest, [H, W], 0 in air and about 1 in the spine."""
    half, top, bottom = body.uniform(0.6, 0.78), body.uniform(-0.86, -0.72), body.uniform(0.42, 0.7)
    bottom += shot.normal(0, 0.04)  # no two breaths are equally deep
    middle, tall = (top + bottom) / 2 + 0.12, (bottom - top) / 2 + 0.12
    side = np.abs(u)

    # Trunk, shoulders and neck: soft tissue before a black background.
    trunk = _step(half + body.uniform(0.1, 0.25) + 0.1 * v - side, 0.03)
    shoulders = _step(v - top + body.uniform(-0.02, 0.12) - 0.3 * (side - 0.2), 0.04) * _step(-0.2 - v, 0.15)
    neck = _step(0.27 - side, 0.03) * _step(-v, 0.3)
    trunk = np.maximum(np.maximum(trunk * _step(v - top - 0.05, 0.08), shoulders), neck)
    density = trunk * body.uniform(0.5, 0.62)

    # Lungs: inside the rib cage, beside the mediastinum, above the domes of the diaphragm.
    cage = (side / (half * (0.92 + 0.16 * v))) ** 2.4 + np.abs((v - middle) / tall) ** 2.6
    dome = bottom + body.uniform(0.5, 1.1) * (side - half * 0.45) ** 2 + body.uniform(0, 0.07) * np.sign(u)
    hilum = body.uniform(0.1, 0.19) + 0.05 * np.cos(4 * v)
    lungs = _step(1 - cage, 0.05) * _step(side - hilum, 0.025) * _step(dome - v, 0.02)
    size, slant = body.uniform(0.22, 0.33), body.uniform(0.2, 0.7)
    du, dv = u - body.uniform(0.06, 0.16), v - bottom + size * 0.8
    heart = _step(1 - ((du - slant * dv) / size) ** 2 - (dv / size / body.uniform(1.1, 1.5)) ** 2, 0.1)
    lungs *= 1 - 0.95 * heart
    density -= lungs * body.uniform(0.34, 0.46)

    # Bones: ribs fall away from the spine behind and towards it in front; clavicles lie across the apices.
    spine = _step(0.085 - side, 0.02) * (0.8 + 0.2 * np.cos(2 * np.pi * v / 0.16 + body.uniform(0, 6)))
    pitch, phase = body.uniform(0.15, 0.2), body.uniform(0, 6)
    behind = np.cos(2 * np.pi * (v - body.uniform(0.2, 0.6) * side + 0.75 * side**2) / pitch + phase)
    before = np.cos(2 * np.pi * (v - body.uniform(0.5, 0.8) * side) / (pitch * 1.25) - phase)
    ribs = _step(behind - 0.35, 0.15) * body.uniform(0.04, 0.09) + _step(before - 0.5, 0.15) * 0.03
    collar = _spot(0, v - top - 0.16 + body.uniform(0.1, 0.3) * side - 0.15 * np.sin(5 * side), 1, 0.028)
    density += ribs * _step(1.12 - cage, 0.03) * _step(side - 0.1, 0.03) + spine * body.uniform(0.1, 0.2)
    collar *= _step(side - 0.07, 0.02) * _step(half * 0.95 - side, 0.03) * body.uniform(0.08, 0.16)
    density += trunk * (collar + _distractors(u, v, body, shot))
    # The finding comes last, so that all the rest is the same whatever the label.
    return density + lungs * (_vessels(u, v, half, body) + FINDINGS[label](u, v, half, top, bottom, body))


def _vessels(u: Map, v: Map, half: float, body: Generator) -> Map:
    """Vessels fanning out from either hilum and thinning towards the chest wall, [H, W]."""
    du, dv = np.abs(u) - 0.2, v - body.uniform(-0.2, -0.05)
    far, angle = np.hypot(du, dv) / half, np.arctan2(dv, du) + body.uniform(-0.3, 0.3) * np.sign(u)
    angle += 0.25 * _cloud(u, 9, body)  # vessels wind
    fan = sum(_step(np.cos(n * angle + body.uniform(0, 6)) - 0.7, 0.15) for n in (7, 11))
    root = np.exp(-((far / 0.2) ** 2)) * body.uniform(0, 0.15)
    return root + fan * np.exp(-4 * far) * body.uniform(0.1, 0.25)


def _normal(u: Map, v: Map, half: float, top: float, bottom: float, body: Generator) -> Map:
    """Nothing."""
    return np.zeros_like(u)


def _pneumonia(u: Map, v: Map, half: float, top: float, bottom: float, body: Generator) -> Map:
    """One consolidation with a soft edge, in any lobe of one lung."""
    x = _sign(body) * half * body.uniform(0.45, 0.65)
    y = top + (bottom - top) * body.uniform(0.3, 0.85)
    patch = _spot(u - x, v - y, body.uniform(0.24, 0.36), body.uniform(0.24, 0.36))
    return patch * (1 + 0.35 * _cloud(u, 14, body)) * body.uniform(0.58, 1.0)


def _covid(u: Map, v: Map, half: float, top: float, bottom: float, body: Generator) -> Map:
    """Haze in several patches along the outer borders of both lungs, mostly low."""
    haze = np.zeros_like(u)
    for side in (-1, 1):
        for _ in range(body.integers(2, 5)):
            y = top + (bottom - top) * body.triangular(0.25, 0.8, 1)
            x = side * half * body.uniform(0.72, 0.92)
            haze = np.maximum(haze, _spot(u - x, v - y, body.uniform(0.15, 0.21), body.uniform(0.15, 0.28)))
    return haze * (1 + 0.4 * _cloud(u, 20, body)) * body.uniform(0.45, 0.77)


def _tuberculosis(u: Map, v: Map, half: float, top: float, bottom: float, body: Generator) -> Map:
    """Small nodules and one or two ring-shaped cavities in the apices."""
    spots = np.zeros_like(u)
    worse = _sign(body)  # one side has the cavities and most of the nodules

    def place() -> tuple[Map, Map]:
        side = worse if body.random() < 0.75 else -worse
        x, y = half * body.uniform(0.32, 0.68), top + (bottom - top) * body.uniform(0.14, 0.4)
        return u - side * x, v - y

    for _ in range(body.integers(5, 11)):
        size = body.uniform(0.05, 0.09)
        spots = np.maximum(spots, _spot(*place(), size, size * body.uniform(0.8, 1.2)))
    for _ in range(body.integers(1, 3)):
        du, dv = place()
        ring = np.hypot(du, dv * body.uniform(0.75, 1.3)) - body.uniform(0.08, 0.13)
        spots = np.maximum(spots, _spot(0, ring + 0.012 * _cloud(u, 24, body), 1, body.uniform(0.03, 0.045)))
    return spots * (1 + 0.3 * _cloud(u, 30, body)) * body.uniform(0.58, 0.95)


FINDINGS = {"COVID19": _covid, "NORMAL": _normal, "PNEUMONIA": _pneumonia, "TURBERCULOSIS": _tuberculosis}


def _distractors(u: Map, v: Map, body: Generator, shot: Generator) -> Map:
    """What lies before the chest and means nothing: breasts, a fold of skin, leads; alike for all labels."""
    shade = np.zeros_like(u)
    if body.random() < 0.5:
        drop, size, dense = body.uniform(0.1, 0.35), body.uniform(0.26, 0.4), body.uniform(0.03, 0.12)
        disc = _step(1 - np.hypot(np.abs(u) - 0.42, v - drop) / size, 0.05)
        shade += dense * disc * _step(v - drop + 0.2, 0.15)  # only the lower edge shows
    if shot.random() < 0.3:
        slope, dense = shot.uniform(-0.4, 0.4), shot.uniform(0.03, 0.08)
        shade += dense * _step(u * _sign(shot) - 0.4 - slope * v, 0.02)
    for _ in range(shot.choice(3, p=[0.6, 0.3, 0.1])):
        bend = shot.uniform(-0.8, 0.8) + shot.uniform(-0.9, 0.9) * v + shot.uniform(-0.6, 0.6) * v**2
        lead = _step(0.007 - np.abs(u - bend), 0.003) * _step(v - shot.uniform(-1, 0.2), 0.01)
        shade += lead * shot.uniform(0.1, 0.3)
    return shade


def expose(density: Map, shot: Generator) -> Map:
    """The image a density leaves, [H, W] in 0 to 1: uneven exposure, contrast and grain."""
    height, width = density.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    uneven = shot.normal(0, 0.05) * x + shot.normal(0, 0.05) * y + 0.04 * _cloud(density, 3, shot)
    image = density * shot.uniform(0.85, 1.3) + shot.uniform(-0.06, 0.12) + uneven
    image = np.clip(image, 0, 1) ** shot.uniform(0.75, 1.35)
    image += shot.uniform(0.01, 0.03) * shot.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 1)


def _sign(rng: Generator) -> float:
    """Left (-1) or right (1)."""
    return -1.0 if rng.random() < 0.5 else 1.0


def _step(x: Map, width: float) -> Map:
    """0 where `x` is below 0, 1 where it is above, with a soft edge of about `width` to either side."""
    return 0.5 + 0.5 * np.tanh(x * np.float32(0.5 / width))


def _spot(du: Map | float, dv: Map, wide: float, tall: float) -> Map:
    """1 within an ellipse with half axes `wide` and `tall`, 0 outside, with a soft edge."""
    return np.exp(-(((du / wide) ** 2 + (dv / tall) ** 2) ** 2))


def _cloud(like: Map, cells: int, rng: Generator) -> Map:
    """Smooth noise of about unit variance in the shape of `like`, `cells` blobs across."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize(like.shape[::-1], Image.Resampling.BICUBIC))
