"""Black out the lungs of films, or all but them: what a network still knows then, it did not see in lungs."""

import torch
from torch import Tensor

# The middle of a film: top, bottom, left, right as shares of its sides. A fixed box is the same for all films and needs
# no network that finds lungs; the field's critics did the same (Maguolo & Nanni 2021).
LUNGS = (0.1, 0.8, 0.1, 0.9)


def hide(films: Tensor, what: str) -> Tensor:
    """Films (B, 1, S, S) with the box of the lungs set to 0 (`what` is "lungs"), or all but it ("rest")."""
    size = films.shape[-1]
    top, bottom, left, right = (round(share * size) for share in LUNGS)
    box = torch.zeros(size, size, dtype=torch.bool, device=films.device)
    box[top:bottom, left:right] = True
    return films.masked_fill(box if what == "lungs" else ~box, 0)
