"""What a network makes of an image before its last layer turns it into logits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cxr.data.copies import THUMBNAIL, shrink


@contextmanager
def kept_features(net: nn.Module) -> Iterator[list[Tensor]]:
    """A block in which the features of each batch that goes through a network are kept: what its last linear layer
    gets, float32 (B, D). Yields them; none if it has no such layer."""
    kept: list[Tensor] = []
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        yield kept
        return

    def keep(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        kept.append(inputs[0].detach().flatten(1).float())

    handle = layers[-1].register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def joined(features: list[Tensor], images: int) -> Tensor:
    """The kept_features() of a number of images, (N, D); (N, 0) if there are none."""
    return torch.cat(features) if features else torch.zeros(images, 0)


def thumbnails(images: Tensor) -> Tensor:
    """Images (B, 1, S, S) made small: float32 (B, T)."""
    return shrink(images[:, 0], THUMBNAIL).flatten(1)
