"""Black out the lungs (a fixed box), or all but the lungs, in images on which a trained network is tested."""

import torch
from torch import Tensor

# The middle of an image: top, bottom, left, right as shares of its sides. A fixed box is the same for all images and
# needs no network that finds lungs, as in Maguolo & Nanni 2021.
LUNGS = (0.1, 0.8, 0.1, 0.9)


def lungs(size: int) -> Tensor:
    """The box of the lungs in an image of `size` pixels a side: bool (size, size)."""
    top, bottom, left, right = (round(share * size) for share in LUNGS)
    box = torch.zeros(size, size, dtype=torch.bool)
    box[top:bottom, left:right] = True
    return box


def hide(images: Tensor, what: str) -> Tensor:
    """Images (B, 1, S, S) with the box of the lungs set to 0 (`what` is "lungs"), or all but it ("rest")."""
    box = lungs(images.shape[-1]).to(images.device)
    return images.masked_fill(box if what == "lungs" else ~box, 0)
